/* Two versions side by side: what they answer differently is read by a process of its own, and so comes a little later. */
(async () => {
  const place = document.getElementById("changed");
  const { element, number, fetch: ask } = window.Console;
  const said = (value, digits = 1) => number.call(window.Console, value, digits);
  const fill = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

  function cell(answer, confidence) {
    const made = element("td", `${answer} `, { class: "text" });
    made.append(element("span", `${said(100 * confidence, 0)} %`, { class: "seconds" }));
    return made;
  }

  function table(kind, rows) {
    const box = element("div", "", { class: "scroll", tabindex: 0, role: "region", "aria-label": place.dataset[kind] });
    const made = element("table", "", { class: `table table-condensed ${kind}` });
    const head = element("tr");
    ["text", "label", "before", "after"].forEach((name) => head.append(element("th", place.dataset[name])));
    made.createTHead().append(head);
    const body = made.createTBody();
    rows.forEach((row) => {
      const line = element("tr");
      line.append(
        element("td", row.text || place.dataset.gone, { class: "text" }),
        element("td", row.label, { class: "text" }),
        cell(row.predicted_old, row.confidence_old),
        cell(row.predicted, row.confidence),
      );
      body.append(line);
    });
    box.append(made);
    return box;
  }

  const points = (share) => said(100 * Math.max(-1, Math.min(1, share))); // an interval of few rows is wider than there is

  try {
    const found = await ask(place.dataset.rows);
    const shown = [element("p", fill(place.dataset.difference, { n: points(found.difference), low: points(found.lower), high: points(found.upper), rows: said(found.rows), sure: said(100 * found.confidence, 0) }), { id: "difference" })];
    ["broken", "fixed", "other"].forEach((kind) => {
      const rows = found.changed.filter((row) => row.kind === kind);
      if (rows.length) shown.push(element("h2", `${place.dataset[kind]} (${said(found.counts[kind])})`), table(kind, rows));
    });
    if (!found.changed.length) shown.push(element("p", place.dataset.none));
    place.replaceChildren(...shown);
  } catch (error) {
    place.replaceChildren(element("p", `${place.dataset.failed} ${error.message}`, { class: "alert alert-danger", role: "alert" }));
  }
})();
