/* A run's page: its steps and epochs as they come, until it has ended. */
(() => {
  const live = document.getElementById("live");
  const { element, number, fetch: ask } = window.Console;
  const SECONDS = 2;
  const kinds = {
    success: "good", failed: "bad", upstream_failed: "bad", running: "busy", restarting: "busy", deferred: "waits",
    up_for_retry: "waits",
  };
  let known = 0;

  function showSteps(steps) {
    document.getElementById("steps").querySelectorAll("li").forEach((line) => {
      const step = steps.find((one) => one.task_id === line.dataset.task);
      if (!step) return;
      const chip = line.querySelector(".chip");
      if (chip.textContent !== (step.state || "–")) {
        chip.textContent = step.state || "–";
        chip.className = `chip ${kinds[step.state] || ""}`;
      }
      const seconds = step.seconds === null ? "" : live.dataset.seconds.replace("{n}", number.call(window.Console, step.seconds, 1));
      const place = line.querySelector(".seconds");
      if (place.textContent !== seconds) place.textContent = seconds;
    });
  }

  function showEpochs({ epochs = [], done = null }) {
    const bar = document.getElementById("done");
    if (done !== null) {
      bar.hidden = false;
      bar.value = done;
    }
    if (epochs.length === known) return;
    known = epochs.length;
    document.getElementById("no-epochs").hidden = true;
    const columns = ["epoch", "epoch_train_loss", "validation_loss", "validation_accuracy", "validation_macro_f1"];
    document.getElementById("epochs").replaceChildren(...epochs.map((epoch) => {
      const line = element("tr");
      line.append(...columns.map((name) => element("td", number.call(window.Console, epoch[name], 4), { class: "number" })));
      return line;
    }));
    window.drawLines(document.getElementById("chart"), [
      { name: "validation_loss", values: epochs.map((epoch) => epoch.validation_loss) },
      { name: "validation_macro_f1", values: epochs.map((epoch) => epoch.validation_macro_f1) },
    ]);
  }

  /** The end of the log of the step that runs, or has failed. */
  async function showLog() {
    const place = document.getElementById("log");
    const { step, lines } = await ask(place.dataset.lines);
    place.hidden = !lines.length;
    const shown = document.getElementById("log-lines");
    const text = lines.join("\n");
    if (shown.textContent === text) return;
    document.getElementById("log-step").textContent = step;
    shown.textContent = text;
    shown.scrollTop = shown.scrollHeight;
  }

  async function look() {
    try {
      const now = await ask(`${live.dataset.state}&known=${known}`);
      showSteps(now.steps);
      showEpochs(now.training);
      showLog().catch(() => {}); // who may not read it sees none
      if (now.over && !live.dataset.over) {
        window.location.reload(); // with its decision
        return;
      }
      if (now.over) return;
    } catch { /* the next look is soon */ }
    setTimeout(look, SECONDS * 1000);
  }
  look();
})();
