/* The page Model: a sentence is tried without leaving the page. */
(() => {
  const form = document.getElementById("ask-form");
  if (!form) return;
  const answer = document.getElementById("answer");
  const { element, number, fetch: ask } = window.Console;

  function said({ version, role, top }) {
    const card = element("div", "", { class: "card" });
    const list = element("ol", "", { class: "answers" });
    top.forEach(({ label, probability }) => {
      const line = element("li");
      line.append(
        element("meter", "", { min: 0, max: 1, value: probability, "aria-label": label }),
        element("span", ` ${label} `),
        element("span", `${number.call(window.Console, 100 * probability, 1)} %`, { class: "seconds" }),
      );
      list.append(line);
    });
    card.append(element("p", answer.dataset[role].replace("{version}", version)), list);
    return card;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    answer.replaceChildren(element("p", form.dataset.asking));
    try {
      const found = await ask(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      answer.replaceChildren(...found.versions.map(said));
    } catch (error) {
      answer.replaceChildren(element("p", `${form.dataset.failed} ${error.message}`, { class: "alert alert-danger" }));
    }
    button.disabled = false;
  });
})();
