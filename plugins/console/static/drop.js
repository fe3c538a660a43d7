/* The page Train: a file is dropped or chosen, sent with its progress shown, and looked at. */
(() => {
  const form = document.getElementById("drop");
  if (!form) return;
  const { fetch: ask, number, token } = window.Console;
  const { again, put, putParts, toBucket, giveUp } = window.Sending;
  const [input, progress, sent, cancel, said] = ["file", "progress", "sent", "cancel", "said"].map((id) => document.getElementById(id));

  const LONGEST_ANSWER = 180; // seconds; a file of many parts is put together meanwhile, for which a webserver has two minutes
  let leave = null; // stops what is being sent
  let parts = null; // what is being sent in parts

  function end(message) {
    leave = null;
    parts = null;
    said.textContent = message;
    [progress, sent, cancel].forEach((one) => { one.hidden = true; });
    input.disabled = false;
    input.value = "";
  }

  function tell(loaded, total) {
    const [n, m] = [loaded, total].map((bytes) => number.call(window.Console, bytes / 1024 ** 2, 0));
    progress.value = (100 * loaded) / total;
    sent.textContent = form.dataset.sent.replace("{n}", n).replace("{m}", m);
  }

  async function throughServer(file, signal) {
    const headers = { Accept: "application/json", "X-CSRFToken": token, "Content-Type": "application/octet-stream" };
    const address = `${form.dataset.action}?name=${encodeURIComponent(file.name)}`;
    const request = await put("POST", address, headers, file, signal, (loaded) => tell(loaded, file.size))
      .catch(() => { throw new Error(form.dataset.cutOff); });
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* not ours */ }
    if (request.status !== 201) throw new Error(answer.error || `${request.status} ${request.statusText}`);
    return answer.page;
  }

  /** Past the webserver: to where the bucket itself takes it, whole or in parts. */
  async function straight(file, signal) {
    const headers = { "X-CSRFToken": token };
    const asked = new URLSearchParams({ name: file.name, size: file.size });
    const place = await ask(form.dataset.direct, { method: "POST", headers, body: asked, signal });
    parts = place.part ? place : null;
    const told = (loaded) => tell(loaded, file.size);
    try {
      if (parts) await putParts(file, parts, signal, told);
      else await toBucket(place.put, file, signal, told);
    } catch (error) {
      if (parts) await giveUp(parts).catch(() => {}); // the bucket's own rule deletes what is left
      throw new Error(`${form.dataset.away} (${error.message})`);
    }
    parts = null;
    return lookedAt(place.come, signal);
  }

  /** The page of a file that has come. Who does not answer is asked again, since the file need not be sent again. */
  async function lookedAt(address, signal) {
    const headers = { "X-CSRFToken": token };
    const { page } = await again(async () => {
      const one = new AbortController();
      const stop = () => one.abort();
      const tooLong = setTimeout(stop, LONGEST_ANSWER * 1000);
      signal.addEventListener("abort", stop);
      try {
        return await ask(address, { method: "POST", headers, signal: one.signal });
      } catch (error) {
        throw error.status ? error : new Error(form.dataset.noAnswer);
      } finally {
        clearTimeout(tooLong);
        signal.removeEventListener("abort", stop);
      }
    }, signal, (error) => {
      if (error.status && error.status < 500) throw error; // refused: it would be again
      sent.textContent = form.dataset.askedAgain;
    });
    return page;
  }

  async function send(file) {
    said.textContent = "";
    const most = Number(form.dataset.most) * 1024 * 1024;
    const mostDirect = Number(form.dataset.mostDirect || 0) * 1024 ** 3;
    if (file.size > Math.max(most, mostDirect)) {
      end(form.dataset.tooLarge);
      return;
    }
    input.disabled = true;
    [progress, sent, cancel].forEach((one) => { one.hidden = false; });
    tell(0, file.size);
    const stop = new AbortController();
    leave = () => stop.abort();
    try {
      const page = await (file.size > most ? straight : throughServer)(file, stop.signal);
      leave = null;
      window.location.assign(page);
    } catch (error) {
      end(stop.signal.aborted ? form.dataset.cancelled : error.message);
    }
  }

  cancel.addEventListener("click", () => leave?.());
  window.addEventListener("beforeunload", (event) => { if (leave) event.preventDefault(); });
  window.addEventListener("pagehide", () => {
    leave?.();
    if (parts) giveUp(parts);
  });
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
