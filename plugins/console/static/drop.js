/* The page Train: a file is dropped or chosen, sent with its progress shown, and looked at. */
(() => {
  const form = document.getElementById("drop");
  if (!form) return;
  const [input, progress, said] = ["file", "progress", "said"].map((id) => document.getElementById(id));

  function fail(message) {
    said.textContent = message;
    progress.hidden = true;
    input.disabled = false;
    input.value = "";
  }

  function send(file) {
    said.textContent = "";
    if (file.size > Number(form.dataset.most) * 1024 * 1024) {
      fail(form.dataset.tooLarge);
      return;
    }
    input.disabled = true;
    progress.hidden = false;
    const request = new XMLHttpRequest(); // fetch does not tell how much of a body was sent
    request.open("POST", `${form.dataset.action}?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRFToken", window.Console.token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress.value = (100 * event.loaded) / event.total;
    });
    request.addEventListener("error", () => fail(form.dataset.cutOff));
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* not ours */ }
      if (request.status === 201) window.location.assign(answer.page);
      else fail(answer.error || `${request.status} ${request.statusText}`);
    });
    request.send(file);
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
