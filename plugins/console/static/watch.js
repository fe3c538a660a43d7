/* The page Watch: a small chart for each check, and its table when somebody opens it. */
document.querySelectorAll(".chart[data-points]").forEach((place) => {
  const { element, number } = window.Console;
  const points = JSON.parse(place.dataset.points);
  const threshold = place.dataset.threshold === "" ? null : Number(place.dataset.threshold);
  window.drawLines(place, [{ values: points.map(([, value]) => value) }], threshold);
  const details = place.parentElement.querySelector("details");
  details.addEventListener("toggle", () => {
    const box = details.querySelector(".scroll");
    if (!details.open || box.children.length) return;
    const table = element("table", "", { class: "table table-condensed" });
    const head = element("tr");
    head.append(element("th", box.dataset.day), element("th", box.dataset.value, { class: "number" }));
    table.createTHead().append(head);
    const body = table.createTBody();
    [...points].reverse().forEach(([day, value]) => {
      const line = element("tr");
      line.append(element("td", day), element("td", number.call(window.Console, value), { class: "number" }));
      body.append(line);
    });
    box.append(table);
  });
});
