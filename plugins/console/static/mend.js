/* Rejected rows in a table: what is changed goes back as a file. */
(() => {
  const form = document.getElementById("mend");
  const [rows, more, said] = ["rows", "more", "said"].map((id) => document.getElementById(id));
  const { element, fetch: ask, token } = window.Console;
  let offset = 0;

  function field(row, name) {
    const cell = element("td", "", { class: `mend-${name}` });
    const input = element(name === "text" ? "textarea" : "input", "", {
      class: "form-control", "aria-label": form.dataset[name].replace("{n}", row.row),
    });
    input.value = row[name] || "";
    input.dataset.before = input.value;
    input.dataset.name = name;
    cell.append(input);
    return cell;
  }

  function show(found) {
    found.rows.forEach((row) => {
      const line = element("tr");
      line.append(
        element("td", (row.file || "").replace(/^incoming\//, ""), { class: "text" }),
        element("td", form.dataset.row.replace("{n}", row.row), { class: "number" }),
        element("td", `${row.rule}: ${row.reason}`, { class: "text" }),
        field(row, "text"),
        field(row, "label"),
      );
      rows.append(line);
    });
    offset += found.rows.length;
    more.hidden = !found.more;
    said.textContent = "";
    said.removeAttribute("aria-busy");
  }

  async function load() {
    more.disabled = true;
    try {
      show(await ask(`${form.dataset.rows}?offset=${offset}`));
    } catch (error) {
      said.textContent = `${form.dataset.failed} ${error.message}`;
    }
    more.disabled = false;
  }

  function changed() {
    return [...rows.children].map((line) => [...line.querySelectorAll("[data-name]")])
      .filter((fields) => fields.some((one) => one.value !== one.dataset.before))
      .map((fields) => Object.fromEntries(fields.map((one) => [one.dataset.name, one.value])));
  }

  more.addEventListener("click", load);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button.btn-primary");
    button.disabled = true;
    try {
      const answer = await ask(form.dataset.action, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRFToken": token },
        body: JSON.stringify({ rows: changed() }),
      });
      window.location.assign(answer.page);
    } catch (error) {
      said.textContent = error.message;
      button.disabled = false;
    }
  });
  load();
})();
