"""The page Watch: what was found when the model was watched, and why it was, or was not, trained again."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import url_for

from include.settings import settings
from include.settings.monitoring import MonitoringSettings
from plugins.console import runs, training, warehouse
from plugins.console.access import Pages, route
from plugins.console.catalogue import Words, of_request

SERIES_DAYS = 60
BUDGET_DAYS = 30
FAILED = "failed"
RETRAINING = "model_retraining_dag"
SUBJECTS = ("drift", "accuracy", "predictions", "uploads", "training_examples", "schema")
"""What stands before a check's full stop, in the order in which it is shown; others come after."""

SHARES = (
    "empty_texts", "missing_labels", "duplicates", "rejected", "cut", "unknown_tokens", "outlying_lengths", "repeated",
    "unsure", "confidence",
)  # fmt: skip
"""The checks whose values are shares of one, by what stands behind their full stop; all of an accuracy are."""


class WatchPages(Pages):
    """``/console/watch``."""

    route_base = "/console/watch"
    default_view = "watch"

    @route("/")
    def watch(self) -> str:
        """The page Watch: the decisions, drift, accuracy and quality by day."""
        name, say, config = settings().model_name, of_request(), MonitoringSettings()
        checks, decisions = warehouse.watched(name, SERIES_DAYS), warehouse.drift_decisions(name)
        used = warehouse.retrainings(name, datetime.now(UTC) - timedelta(days=BUDGET_DAYS))
        return self.page(
            "watch.html",
            model_name=name,
            why=_why(say, decisions, checks),
            run=_run_of(decisions[0]) if decisions else "",
            used=len(used),
            allowed=config.drift_retrainings_a_month,
            free_from=_free_from(used, config.drift_retrainings_a_month),
            on_drift=config.retrain_on_drift,
            subjects=_by_subject([check | {"unit": _unit(check["name"])} for check in checks]),
            alarms=warehouse.alarms(name, SERIES_DAYS),
            decisions=decisions,
            days=SERIES_DAYS,
        )


def _free_from(used: list[warehouse.Decision], allowed: int) -> datetime | None:
    """From when on a drift may start a retraining again; None if it may now, or never."""
    if not allowed or len(used) < allowed:
        return None
    return used[allowed - 1].decided_at + timedelta(days=BUDGET_DAYS)  # the newest first


def _run_of(decision: warehouse.Decision) -> str:
    """The address of the run that carries a decision out; empty if there is none."""
    run_id = f"drift__{decision.decision_id}"
    found = runs.find(RETRAINING, run_id)
    return url_for("TrainPages.run", dag_id=RETRAINING, run_id=run_id) if found else ""


def _why(say: Words, decisions: list[warehouse.Decision], checks: list[dict[str, Any]]) -> str:
    """Why the model was, or was not, trained again: one sentence."""
    if decisions:
        return _decided(say, decisions[0])
    if not checks:
        return say("The model is not watched yet: nothing was found, so nothing was decided.")
    newest = max(str(check["day"]) for check in checks)
    bad = [check["name"] for check in checks if check["day"] == newest and check["last"]["verdict"] == FAILED]
    if bad:
        return say("On {day} these checks complained: {checks}. No training was decided on yet.", day=say.day(newest), checks=", ".join(bad))  # noqa: E501 # fmt: skip
    return say("Not trained again: on {day}, the last day that was looked at, nothing was found.", day=say.day(newest))


def _decided(say: Words, newest: warehouse.Decision) -> str:
    """What has become of the newest decision; its reason is the pipeline's own words."""
    day, reason = say.day(str(newest.facts.get("day", newest.decided_at.date()))), newest.reason
    if newest.facts.get("decision") != "retrain":
        return say("Not trained again: on {day}, {reason}", day=day, reason=reason)
    run_id = f"drift__{newest.decision_id}"
    run = runs.find(RETRAINING, run_id)
    if run is None:
        if not MonitoringSettings().retrain_on_drift:
            return say("Not trained again, though it was due on {day}, as BERT_RETRAIN_ON_DRIFT is false: {reason}", day=day, reason=reason)  # noqa: E501 # fmt: skip
        return say("To be trained again: on {day}, {reason}", day=day, reason=reason)
    if not run.is_over:
        return say("It is being trained again: on {day}, {reason}", day=day, reason=reason)
    ended = training.outcome(RETRAINING, run_id).get("outcome")
    if ended is None:
        return say("Its training has failed, which was due as on {day}, {reason}", day=day, reason=reason)
    if ended == "promoted":
        return say("Trained again: on {day}, {reason}", day=day, reason=reason)
    return say("Trained again, and the champion stayed ({outcome}): on {day}, {reason}", outcome=ended, day=day, reason=reason)  # noqa: E501 # fmt: skip


def _unit(check: str) -> str:
    """What a check's values are measured in; empty if they are plain numbers."""
    subject, _, name = check.partition(".")
    if subject == "accuracy" or name in SHARES:
        return "%"
    return "ms" if name.endswith("_ms") else ""


def _by_subject(checks: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The checks by what they are about; of drift the score first, which tells of all the tests."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for check in checks:
        found[check["name"].split(".", 1)[0]].append(check)
    for mine in found.values():
        mine.sort(key=lambda check: (check["name"] != "drift.score", check["name"]))
    order = {subject: at for at, subject in enumerate(SUBJECTS)}
    return sorted(found.items(), key=lambda one: (order.get(one[0], len(order)), one[0]))
