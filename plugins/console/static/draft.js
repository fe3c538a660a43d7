/* A draft's page: waits until the file was looked at, and after Train until a run has it. */
(() => {
  const draft = document.getElementById("draft");
  const waits = draft.dataset.waits;
  if (!waits) return;
  const SECONDS = 2;

  async function look() {
    try {
      const now = await window.Console.fetch(draft.dataset.state);
      if (waits === "run" && now.run) {
        window.location.replace(now.run);
        return;
      }
      if (waits === "preview" && (now.looked_at || now.looking === "failed")) {
        window.location.reload();
        return;
      }
    } catch { /* the next look is soon */ }
    setTimeout(look, SECONDS * 1000);
  }
  const failed = document.querySelector("[role=alert].alert-danger");
  if (!failed) setTimeout(look, SECONDS * 1000);
})();
