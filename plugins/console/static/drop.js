/* The page Train: a file is dropped or chosen, sent with its progress shown, and looked at. */
(() => {
  const form = document.getElementById("drop");
  if (!form) return;
  const { fetch: ask, token } = window.Console;
  const [input, progress, said] = ["file", "progress", "said"].map((id) => document.getElementById(id));

  function fail(message) {
    said.textContent = message;
    progress.hidden = true;
    input.disabled = false;
    input.value = "";
  }

  /** Sends a body with its progress shown, which fetch does not tell; answers with the request. */
  function put(method, address, headers, body) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(method, address);
      Object.entries(headers).forEach(([name, value]) => request.setRequestHeader(name, value));
      request.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) progress.value = (100 * event.loaded) / event.total;
      });
      request.addEventListener("error", () => reject(new Error("")));
      request.addEventListener("load", () => resolve(request));
      request.send(body);
    });
  }

  async function throughServer(file) {
    const headers = { Accept: "application/json", "X-CSRFToken": token, "Content-Type": "application/octet-stream" };
    const request = await put("POST", `${form.dataset.action}?name=${encodeURIComponent(file.name)}`, headers, file)
      .catch(() => { throw new Error(form.dataset.cutOff); });
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* not ours */ }
    if (request.status !== 201) throw new Error(answer.error || `${request.status} ${request.statusText}`);
    return answer.page;
  }

  /** Past the webserver: to where the bucket itself takes it. */
  async function straight(file) {
    const headers = { "X-CSRFToken": token };
    const asked = new URLSearchParams({ name: file.name, size: file.size });
    const place = await ask(form.dataset.direct, { method: "POST", headers, body: asked });
    const request = await put("PUT", place.put, {}, file).catch(() => { throw new Error(form.dataset.away); });
    if (request.status >= 300) throw new Error(`${form.dataset.away} (${request.status})`);
    return (await ask(place.come, { method: "POST", headers })).page;
  }

  async function send(file) {
    said.textContent = "";
    const most = Number(form.dataset.most) * 1024 * 1024;
    const mostDirect = Number(form.dataset.mostDirect || 0) * 1024 ** 3;
    if (file.size > Math.max(most, mostDirect)) {
      fail(form.dataset.tooLarge);
      return;
    }
    input.disabled = true;
    progress.hidden = false;
    progress.value = 0;
    try {
      window.location.assign(await (file.size > most ? straight(file) : throughServer(file)));
    } catch (error) {
      fail(error.message);
    }
  }

  input.addEventListener("change", () => { if (input.files.length) send(input.files[0]); });
  form.addEventListener("submit", (event) => event.preventDefault());
  ["dragenter", "dragover"].forEach((name) => form.addEventListener(name, (event) => {
    event.preventDefault();
    form.classList.add("over");
  }));
  ["dragleave", "drop"].forEach((name) => form.addEventListener(name, (event) => {
    event.preventDefault();
    form.classList.remove("over");
  }));
  form.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length && !input.disabled) send(event.dataTransfer.files[0]);
  });
})();
