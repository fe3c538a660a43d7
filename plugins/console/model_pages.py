"""The page Model: the champion, what waits for a person, decisions, rolling back, trying a sentence."""

from typing import Any

from flask import flash, redirect, request, url_for
from werkzeug.wrappers import Response

from include import lake, objects
from include.evaluation.mistakes import Mistakes
from include.settings import settings
from include.settings.console import ConsoleSettings
from plugins.console import runs, serving, warehouse
from plugins.console.access import DECIDE_CHALLENGER, DECIDE_UPLOAD, ROLLBACK, Pages, Refused, person, route
from plugins.console.catalogue import of_request
from plugins.console.version_pages import mistakes_of

LONGEST_TEXT = 5_000  # characters
SHOWN_SOURCES = 20


class ModelPages(Pages):
    """``/console``."""

    default_view = "model"

    @route("/")
    def model(self) -> str:
        """The champion and all that was decided."""
        name = settings().model_name
        before = request.args.get("before", type=int)
        decisions = warehouse.timeline(name, before=before)
        now = warehouse.champion(name)
        return self.page(
            "model.html",
            model_name=name,
            champion=now,
            judged=warehouse.judged(name, now.version) if now else None,
            accuracies=warehouse.accuracies(name, now.decided_at) if now else {},
            mistakes=_mistakes(name, now.version) if now else None,
            dataset=_dataset(now.dataset_id) if now else None,
            former=warehouse.former_champions(name),
            waits=warehouse.waits(name),
            decisions=decisions,
            older=decisions[-1].seq if len(decisions) == 20 else None,
            asked=[run for dag_id in (ROLLBACK, DECIDE_CHALLENGER) for run in runs.recent(dag_id, 3)],
            serving=ConsoleSettings().serving_url,
        )

    @route("/roll-back", methods=["POST"], starts=ROLLBACK)
    def roll_back(self) -> Response:
        """Asks for an earlier version, in the name of whoever asks."""
        conf = {"reason": runs.reason(), "name": person(), "replaces": request.form.get("replaces") or None}
        version = request.form.get("version", "")
        runs.start_asked(ROLLBACK, conf | ({"to_version": version} if version else {}))
        flash(of_request()("Rolling back: the version is loaded and answers the golden rows first."), "info")
        return redirect(url_for("ModelPages.model", _anchor="asked"))

    @route("/decide", methods=["POST"], starts=DECIDE_CHALLENGER)
    def decide(self) -> Response:
        """Approves or rejects a challenger that waits."""
        decision, run_id = request.form.get("decision", ""), request.form.get("run_id", "")
        if decision not in ("approve", "reject") or not run_id:
            raise Refused(of_request()("Say which challenger, and whether to approve or to reject it."))
        conf = {"run_id": run_id, "decision": decision, "name": person(), "reason": runs.reason()}
        runs.start_asked(DECIDE_CHALLENGER, conf)
        flash(of_request()("Your decision is being carried out."), "info")
        return redirect(url_for("ModelPages.model", _anchor="asked"))

    @route("/decide-upload", methods=["POST"], starts=DECIDE_UPLOAD)
    def decide_upload(self) -> Response:
        """Takes rows back that were set aside, or says that corrections are right."""
        decision, run_id = request.form.get("decision", ""), request.form.get("run_id", "")
        if decision not in ("approve_corrections", "readmit", "establish") or not run_id:
            raise Refused(of_request()("Say of which run, and what is to be done."))
        runs.start_asked(
            DECIDE_UPLOAD, {"run_id": run_id, "decision": decision, "name": person(), "reason": runs.reason()}
        )
        flash(of_request()("Your decision is being carried out."), "info")
        return redirect(url_for("DataPages.data"))

    @route("/ask", methods=["POST"])
    def ask(self) -> dict[str, Any]:
        """What the champion, and a challenger that the model server has loaded beside it, say to a text."""
        say, text = of_request(), request.form.get("text", "").strip()
        if not text:
            raise Refused(say("Write a text first."))
        if len(text) > LONGEST_TEXT:
            raise Refused(say("The text has more than {n} characters.", n=LONGEST_TEXT))
        return {"versions": serving.ask("compare", {"text": text, "top_k": 5})}


def _mistakes(model_name: str, version: str) -> Mistakes | None:
    made = warehouse.made(model_name, version)
    return mistakes_of(made.dag_run_id) if made else None


def _dataset(dataset_id: str) -> dict[str, Any] | None:
    """What the manifest says of the data that a version learnt from; None if it is gone."""
    manifest = lake.dataset(dataset_id, "manifest.json") if dataset_id else ""
    if not manifest or not objects.exists(manifest):
        return None
    found = objects.read_json(manifest)
    counts = found.get("label_counts", {})
    return {
        "id": dataset_id,
        "rows": found.get("rows", {}),
        "labels": sorted(counts.items(), key=lambda one: -one[1]),
        "sources": [source.removeprefix("incoming/") for source in found.get("sources", [])][:SHOWN_SOURCES],
        "new_rows": found.get("new_rows"),
    }
