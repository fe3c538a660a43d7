/* The page Model: a sentence is tried without leaving the page. */
(() => {
  const form = document.getElementById("ask-form");
  if (!form) return;
  const answer = document.getElementById("answer");
  const { element, number, fetch: ask } = window.Console;

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    answer.replaceChildren(element("p", form.dataset.asking));
    try {
      const found = await ask(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      const list = element("ol", "", { class: "answers" });
      found.top.forEach(({ label, probability }) => {
        const line = element("li");
        line.append(
          element("meter", "", { min: 0, max: 1, value: probability, "aria-label": label }),
          element("span", ` ${label} `),
          element("span", `${number.call(window.Console, 100 * probability, 1)} %`, { class: "seconds" }),
        );
        list.append(line);
      });
      answer.replaceChildren(element("p", answer.dataset.version.replace("{version}", found.version)), list);
    } catch (error) {
      answer.replaceChildren(element("p", `${form.dataset.failed} ${error.message}`, { class: "alert alert-danger" }));
    }
    button.disabled = false;
  });
})();
