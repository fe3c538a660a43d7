/* What Airflow's own main.js expects to be there; its pages have it between their lines. */
(() => {
  const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content || "";
  window.Airflow = { serverTimezone: meta("server-timezone"), defaultUITimezone: meta("default-ui-timezone") };
  window.hostName = meta("host-name");
  window.csrfToken = meta("csrf-token");
  window.Console = {
    token: meta("csrf-token"),
    language: document.documentElement.lang,

    /** An answer in JSON; throws with the server's sentence and its status, or without one if there was no answer. */
    async fetch(address, options = {}) {
      const headers = { Accept: "application/json", ...(options.headers || {}) };
      const answer = await fetch(address, { credentials: "same-origin", ...options, headers });
      const found = await answer.json().catch(() => ({}));
      if (!answer.ok) {
        throw Object.assign(new Error(found.error || `${answer.status} ${answer.statusText}`), { status: answer.status });
      }
      return found;
    },

    /** An element with a text; never markup. */
    element(name, text = "", attributes = {}) {
      const made = document.createElement(name);
      made.textContent = text;
      Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
      return made;
    },

    /** A day such as 2026-11-27 as the viewer writes it. */
    day(day) {
      return new Intl.DateTimeFormat(this.language, { dateStyle: "medium", timeZone: "UTC" }).format(new Date(day));
    },

    /** A measured value with its unit; a share of one in percent. */
    measured(value, unit) {
      if (unit === "%" && Number.isFinite(value)) return `${this.number(100 * value, 1)}\u00a0%`;
      return Number.isFinite(value) && unit ? `${this.number(value, 0)} ${unit}` : this.number(value, 4);
    },

    number(value, digits = 3) {
      if (value === null || value === undefined) return "–";
      return new Intl.NumberFormat(this.language, { maximumFractionDigits: digits }).format(value);
    },
  };
})();
