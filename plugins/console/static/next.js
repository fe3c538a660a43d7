/* Texts are labelled one after the other, with the keyboard; nothing is sent before somebody says so. */
(async () => {
  const place = document.getElementById("next");
  const [said, text, choices, find, at, done, undo, send] = ["said", "text", "choices", "find", "at", "done", "undo", "send"]
    .map((id) => document.getElementById(id));
  const { element, number, fetch: ask, token } = window.Console;
  const KEYS = 9;
  const SHOWN = 60; // choices at a time: whoever has more labels finds one
  const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
  const past = []; // { label }, or null for a text that was left out
  let [texts, labels, origin, shown, chosen] = [[], [], "", [], 0];

  const current = () => texts[past.length];
  const labelled = () => past.map((label, index) => ({ label, ...texts[index] })).filter((row) => row.label !== null);

  function mark() {
    [...choices.children].forEach((choice, index) => choice.setAttribute("aria-selected", index === chosen));
    const choice = choices.children[chosen];
    if (choice) {
      choices.setAttribute("aria-activedescendant", choice.id);
      choice.scrollIntoView({ block: "nearest" });
    } else choices.removeAttribute("aria-activedescendant");
  }

  function list() {
    const guess = current()?.predicted;
    const order = guess && labels.includes(guess) ? [guess, ...labels.filter((label) => label !== guess)] : labels;
    const wanted = find.value.trim().toLowerCase();
    shown = order.filter((label) => label.toLowerCase().includes(wanted)).slice(0, SHOWN);
    choices.replaceChildren(...shown.map((label, index) => {
      const choice = element("div", "", { role: "option", id: `choice-${index}`, class: "choice" });
      if (index < KEYS) choice.append(element("kbd", index + 1), " ");
      choice.append(element("span", label));
      if (label === guess) choice.append(element("span", ` ${number.call(window.Console, 100 * current().probability, 0)} %`, { class: "seconds" }));
      choice.addEventListener("click", () => take(label));
      return choice;
    }));
    chosen = 0;
    mark();
  }

  function show() {
    const row = current();
    text.textContent = row ? row.text : place.dataset.over;
    at.textContent = fill(place.dataset.at, { at: Math.min(past.length + 1, texts.length), n: texts.length });
    const rows = labelled().length;
    done.textContent = fill(place.dataset.done, { n: rows });
    undo.disabled = !past.length;
    send.disabled = !rows;
    ["take", "skip"].forEach((id) => { document.getElementById(id).disabled = !row; });
    find.value = "";
    list();
    if (row) choices.focus(); else send.focus();
  }

  function take(label) {
    if (!current() || label === undefined) return;
    past.push(label);
    show();
  }

  const skip = () => take(null);
  function back() {
    if (past.pop() !== undefined) show();
  }

  const keys = {
    ArrowDown: () => { chosen = Math.min(chosen + 1, shown.length - 1); mark(); },
    ArrowUp: () => { chosen = Math.max(chosen - 1, 0); mark(); },
    Enter: () => take(shown[chosen]),
    s: skip,
    u: back,
    "/": () => find.focus(),
  };

  document.addEventListener("keydown", (event) => {
    const finding = event.target === find;
    if (place.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!finding && event.target !== choices && event.target !== document.body && event.target !== text) return;
    if (finding && event.key === "Escape") choices.focus();
    const digit = !finding && /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
    const action = finding && event.key.length === 1 ? null : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!digit && !action) return;
    event.preventDefault();
    if (digit) take(shown[digit - 1]); else action();
  });
  find.addEventListener("input", list);
  document.getElementById("take").addEventListener("click", () => take(shown[chosen]));
  document.getElementById("skip").addEventListener("click", skip);
  undo.addEventListener("click", back);
  window.addEventListener("beforeunload", (event) => { if (labelled().length && !send.dataset.sent) event.preventDefault(); });

  send.addEventListener("click", async () => {
    send.disabled = true;
    const rows = labelled().map(({ id, text: words, label }) => ({ id, text: words, label }));
    try {
      const answer = await ask(place.dataset.action, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRFToken": token },
        body: JSON.stringify({ origin, rows }),
      });
      send.dataset.sent = "yes";
      window.location.assign(answer.page);
    } catch (error) {
      said.textContent = error.message;
      send.disabled = false;
    }
  });

  try {
    const random = place.dataset.kind === "random";
    const found = await ask(place.dataset.rows, random ? { method: "POST", headers: { "X-CSRFToken": token } } : {});
    ({ texts, labels, origin } = found);
    said.removeAttribute("aria-busy");
    said.textContent = "";
    if (!labels.length) said.textContent = place.dataset.noLabels;
    else if (!texts.length) said.textContent = place.dataset.none;
    else {
      place.hidden = false;
      document.getElementById("origin").textContent = fill(place.dataset.from, { origin });
      show();
    }
  } catch (error) {
    said.textContent = `${place.dataset.failed} ${error.message}`;
  }
})();
