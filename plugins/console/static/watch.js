/* The page Watch: a small chart for each check, and its table when somebody opens it. */
document.querySelectorAll(".chart[data-points]").forEach((place) => {
  const { element } = window.Console;
  const { unit } = place.dataset;
  const points = JSON.parse(place.dataset.points);
  const threshold = place.dataset.threshold === "" ? null : Number(place.dataset.threshold);
  const values = points.map(([, value]) => value);
  window.drawLines(place, [{ values }], threshold);
  const known = values.filter(Number.isFinite);
  const ends = (low, high, written) => (low === high ? written(low) : `${written(low)} – ${written(high)}`);
  const range = ends(Math.min(...known), Math.max(...known), (value) => window.Console.measured(value, unit));
  const days = ends(points[0][0], points.at(-1)[0], (day) => window.Console.day(day));
  if (known.length) place.querySelector(".legend").textContent = `${days}: ${range}`;
  else place.hidden = true; // there is nothing to draw
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
      line.append(element("td", window.Console.day(day)), element("td", window.Console.measured(value, unit), { class: "number" }));
      body.append(line);
    });
    box.append(table);
  });
});
