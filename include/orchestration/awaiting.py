"""Challengers that wait for a person: how a run ends with one, and what becomes of its rows when that is over.

Such a run is over, and holds nothing: its batches are *awaiting approval*, so that no other run takes them, and none
of its rows is in what later challengers are built on. Only one of several that wait can become champion, for they are
built on the same one. The others are superseded then, and their rows join the next run.
"""
# Only imported inside tasks.

import logging
from datetime import UTC, datetime

from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import manifests
from include.datasets.intake import Intake, Plan
from include.orchestration import golden_rows, settling
from include.orchestration.outcome import conclude_again, of_run
from include.orchestration.warehouse import warehouse
from include.registry import approvals, ledger, models, versions
from include.registry.approvals import Wait
from include.registry.ledger import MOVES, Entry
from include.uploads import open_batches
from include.uploads.lifecycle import Because, State

logger = logging.getLogger(__name__)

ACTOR = "pipeline"
LATEST_ANSWERS = 5  # of which one may have been cut off, or given by hand in MLflow
STATES = {
    "promoted": (State.USED, Because.NONE),
    "rejected": (State.SET_ASIDE, Because.NONE),
    "superseded": (State.RELEASED, Because.SUPERSEDED),
}


def ask(plan: Plan, dag_id: str, entry: Entry, engine: Engine) -> None:
    """Enters that a run's challenger waits for a person; what it would have been decided to be is its ``entry``."""
    known = {name: fact for name, fact in entry.facts.items() if name != ledger.ANCHOR}  # it is none yet
    facts = {approvals.DAG_ID: dag_id, versions.PARENT: plan.parent_dataset_id}
    approvals.ask(entry.model_copy(update={"verb": "await", "facts": known | facts}), engine)


def how_to_answer(run_id: str, version: str) -> str:
    """What a person is to do, in words."""
    return (
        f"version {version} waits for a person: make approve RUN='{run_id}' NAME=… REASON=…, or make reject, or the "
        "DAG decide_challenger"
    )


def catch_up(model_name: str, engine: Engine) -> list[str]:
    """Supersedes what waits and can be champion no more, and finishes what was cut off; returns a sentence for each.

    May be repeated. What it releases is taken by the run that starts next.
    """
    told, waits = [], approvals.waits(engine, model_name)
    unfinished = {one.run_id for one in open_batches.lives() if one.state is State.AWAITING}
    # A run without an upload has no batch that would show it, so the latest answers are looked at.
    latest = {one.asked.dag_run_id for one in [one for one in waits if one.answer][-LATEST_ANSWERS:]}
    for wait in waits:
        run_id = wait.asked.dag_run_id
        if wait.answer is None:
            told += [supersede(wait, reason, engine)] if (reason := outdated(wait, engine)) else []
        elif run_id in unfinished or (run_id in latest and is_unfinished(wait.asked)):
            finish(wait.asked, wait.answer, _why(wait.answer))
    return told


def outdated(wait: Wait, engine: Engine) -> str:
    """Why a challenger that waits cannot become champion: its rows are not upon the champion's. Empty if it can."""
    asked, parent = wait.asked, versions.parent_dataset_id(wait.asked.model_name, engine)
    champion = models.by_alias(asked.model_name, models.CHAMPION)
    if parent == wait.parent_dataset_id or (champion is not None and champion.version == asked.version):
        return ""
    now = f"version {champion.version} is the champion now, trained on" if champion else "the next model is built on"
    return (
        f"{now} dataset {parent}, and version {asked.version}, which waited for a person, was built on "
        f"{wait.parent_dataset_id or 'none'}"
    )


def supersede(wait: Wait, reason: str, engine: Engine) -> str:
    """Lets the rows of a challenger that waited in vain join the next run; returns a sentence that says so."""
    told = f"{reason}: it is superseded, and its rows join the next run"
    current = models.by_alias(wait.asked.model_name, models.CHAMPION)
    entry = wait.asked.model_copy(
        update={
            "verb": "supersede",
            "previous_champion": current.version if current else None,
            "actor": ACTOR,
            "reason": told,
            "facts": {},
            "decided_at": datetime.now(UTC),
        }
    )
    given = approvals.answer(entry, engine)
    finish(wait.asked, given, told)
    logger.warning("%s", told)
    return told


def finish(asked: Entry, given: Entry, reason: str) -> None:
    """Brings batches, golden rows, run.json and note to where an answer wants them; may be repeated."""
    outcome, run_id = approvals.outcome_of(given), asked.dag_run_id
    if not is_unfinished(asked):
        return
    if given.verb in MOVES:
        golden_rows.follow_champion(asked.model_name, f"version {asked.version} was promoted", promoted=True)
    plan, intake = _staged(asked)
    state, because = STATES[outcome]
    settling.settle_awaiting(plan, intake, state, because, reason)
    facts = {"champion_version": asked.version} if given.verb in MOVES else {}
    conclude_again(dag_of(asked), plan, intake, outcome, f"version {asked.version}: {reason}", **facts)
    if given.verb in MOVES and asked.dataset_id not in _champions_data(asked.model_name):
        settling.set_aside([run_id], f"version {asked.version} was left by a rollback since")


def _staged(asked: Entry) -> tuple[Plan, Intake]:
    """What a run worked on; if somebody has deleted that, what its report knows: no later run is to fail by it."""
    run_id = asked.dag_run_id
    plan, intake = (lake.staging(run_id, name) for name in ("plan.json", "intake.json"))
    if objects.exists(plan) and objects.exists(intake):
        return Plan.model_validate_json(objects.read_bytes(plan)), Intake.model_validate(objects.read_json(intake))
    report = of_run(dag_of(asked), run_id)
    logger.warning("what run %s worked on is gone from %s", run_id, lake.staging(run_id))
    parent = asked.facts.get(versions.PARENT)
    return (
        Plan(run_id=run_id, model_name=asked.model_name, sources=[], parent_dataset_id=parent),
        Intake(files=report.get("files", []), warnings=report.get("warnings", []), accepted_uri="", accepted_rows=0),
    )


def is_unfinished(asked: Entry) -> bool:
    """Whether a run still looks as if its challenger waited."""
    report = of_run(dag_of(asked), asked.dag_run_id)
    return report.get("outcome", "awaiting_approval") == "awaiting_approval" or bool(
        settling.awaiting(asked.dag_run_id)
    )


def dag_of(asked: Entry) -> str:
    """The id of the DAG whose run asked a person."""
    return str(asked.facts[approvals.DAG_ID])


def _champions_data(model_name: str) -> list[str]:
    return manifests.ancestry(versions.parent_dataset_id(model_name, warehouse()))


def _why(given: Entry) -> str:
    return f"{approvals.outcome_of(given).capitalize()}: {given.reason}"
