/* New labels that wait are counted by a process of its own, and so come a little later. */
(async () => {
  const place = document.getElementById("waiting");
  const form = document.getElementById("admit");
  const { element, number, fetch: ask } = window.Console;
  try {
    const labels = Object.entries((await ask(place.dataset.rows)).labels);
    if (!labels.length) {
      place.replaceChildren(element("p", place.dataset.none));
      return;
    }
    const table = element("table", "", { class: "table table-condensed narrow" });
    const head = element("tr");
    head.append(element("th", place.dataset.label), element("th", place.dataset.count, { class: "number" }));
    if (form) head.append(element("td"));
    table.createTHead().append(head);
    const body = table.createTBody();
    labels.forEach(([label, rows]) => {
      const line = element("tr");
      line.append(element("td", label, { class: "text" }), element("td", number.call(window.Console, rows, 0), { class: "number" }));
      if (form) {
        const cell = element("td");
        const choose = element("button", place.dataset.choose.replace("{label}", label), { type: "button", class: "btn btn-default btn-sm" });
        choose.addEventListener("click", () => {
          form.elements.label.value = label;
          form.elements.reason.focus();
        });
        cell.append(choose);
        line.append(cell);
      }
      body.append(line);
    });
    place.replaceChildren(table);
  } catch (error) {
    place.replaceChildren(element("p", `${place.dataset.failed} ${error.message}`, { class: "alert alert-danger", role: "alert" }));
  }
})();
