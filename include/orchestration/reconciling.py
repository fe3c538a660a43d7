"""What a run or a rollback does first: registry, ledger and batches are brought to agree, whatever was cut off."""
# Only imported inside tasks.

import logging

from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import manifests, newcomers
from include.datasets.intake import Intake, Plan
from include.orchestration import awaiting, batches, outcome, settling
from include.orchestration.batches import PIPELINE
from include.orchestration.warehouse import warehouse
from include.registry import approvals, ledger, standing, versions
from include.registry.ledger import Entry
from include.uploads import lifecycle, open_batches, rounds
from include.uploads.lifecycle import State, Who
from include.uploads.rounds import Pipeline

logger = logging.getLogger(__name__)


def reconcile(model_name: str) -> list[str]:
    """Finishes moves that were cut off, and mends what was done in MLflow by hand; returns a sentence for each.

    Challengers that wait for a person, and cannot become champion any more, are superseded and told of.

    Raises ChampionLost if the champion's files are gone and somebody has to decide which version is to replace it.
    """
    engine = warehouse()
    told = standing.champion(model_name, engine).told
    superseded = awaiting.catch_up(model_name, engine)
    settle_batches_of_last_move(model_name, engine)
    return [*told, *superseded]


def settle_batches_of_last_move(model_name: str, engine: Engine) -> None:
    """Sets the uploads of the versions aside that a rollback, or a move by hand, has left. May be repeated."""
    last = ledger.last_move(engine, model_name)
    if last is None or last.verb not in ("rollback", "by_hand"):
        return
    left, regained = versions.left_and_regained(engine, last)
    how = "rollback" if last.verb == "rollback" else "move by hand"
    why = f"{how} from version {last.previous_champion} to {last.version}: {last.reason}"
    settling.set_aside([one.dag_run_id for one in left], why)
    settling.restore([one.dag_run_id for one in regained], why)


def release_abandoned(pipeline: Pipeline) -> None:
    """Releases the batches of runs that are over without an outcome, but for those whose challenger was promoted.

    Such a run died between the promotion and its batches' end: their rows are in that version, as the ledger knows. So
    it may have died after its challenger began to wait for a person.
    """
    over = [
        entry
        for entry in open_batches.lives()
        if entry.state is State.TAKEN and pipeline.is_over(entry.run_id)
    ]  # fmt: skip
    for entry in over:
        promoted = ledger.of_run(warehouse(), entry.run_id, "promote")
        if promoted is not None:
            _end_promoted(entry, promoted)
        elif asked := ledger.of_run(warehouse(), entry.run_id, "await"):
            _end_awaiting(entry, asked)
    rounds.release_abandoned(pipeline)


def end_unsaid_waits(model_name: str, pipeline: Pipeline) -> None:
    """Ends the runs that died after their challengers began to wait for a person, those without uploads too."""
    for wait in approvals.waits(warehouse(), model_name):
        if wait.answer is None and pipeline.is_over(wait.asked.dag_run_id):
            _say_that_it_waits(wait.asked)


def _say_that_it_waits(asked: Entry) -> str:
    """Keeps the rows that had waited before such a run from other runs, and writes its outcome; may be repeated."""
    reason, run_id = (
        f"version {asked.version} waits for a person; its run died before it could say so",
        asked.dag_run_id,
    )
    wait = approvals.of_run(warehouse(), asked.model_name, run_id)
    if wait is None or wait.answer is not None or outcome.of_run(awaiting.dag_of(asked), run_id):
        return reason
    if (staged := _staged(run_id)) is not None:
        plan, intake = staged
        newcomers.set_aside(plan.model_name, run_id, intake.newcomers)
        told = f"{awaiting.how_to_answer(run_id, asked.version)}. {asked.reason}"
        facts = {"model_version": asked.version, "champion_version": asked.previous_champion}
        facts |= {"dataset_id": asked.dataset_id, "job_id": asked.job_id}
        outcome.conclude_again(awaiting.dag_of(asked), plan, intake, "awaiting_approval", told, **facts)
    return reason


def _end_awaiting(entry: lifecycle.Entry, asked: Entry) -> None:
    run_id = entry.run_id
    reason = _say_that_it_waits(asked)  # before the batch: as long as that is taken, whoever comes next finishes this
    lifecycle.move(
        entry.batch_id, State.AWAITING, Who.RUN, provided=lambda last: last.run_id == run_id, reason=reason
    )  # fmt: skip
    batches.record([entry.batch_id])
    logger.warning("batch %s: %s", entry.batch_id, reason)


def _finish(promoted: Entry, reason: str) -> None:
    """Lets the rows of new labels wait that a promoted run has left, and writes its outcome; may be repeated."""
    run_id = promoted.dag_run_id
    if (staged := _staged(run_id)) is None:
        return
    plan, intake = staged
    settling.publish_newcomers(plan, intake)
    dag_id = promoted.actor.removeprefix("dag:") if promoted.actor.startswith("dag:") else PIPELINE
    if not outcome.of_run(dag_id, run_id):
        facts = {"model_version": promoted.version, "champion_version": promoted.version}
        facts |= {"dataset_id": promoted.dataset_id, "job_id": promoted.job_id}
        outcome.conclude_again(dag_id, plan, intake, "promoted", f"version {promoted.version}: {reason}", **facts)


def _staged(run_id: str) -> tuple[Plan, Intake] | None:
    """What a run worked on; None if somebody has deleted that."""
    plan, intake = (lake.staging(run_id, name) for name in ("plan.json", "intake.json"))
    if objects.exists(plan) and objects.exists(intake):
        return Plan.model_validate_json(objects.read_bytes(plan)), Intake.model_validate(objects.read_json(intake))
    logger.warning("what run %s worked on is gone from %s", run_id, lake.staging(run_id))
    return None


def _end_promoted(entry: lifecycle.Entry, promoted: Entry) -> None:
    run_id = entry.run_id
    reason = f"version {promoted.version} was promoted; its run died before it could say so"
    _finish(promoted, reason)  # before the batch: as long as that is taken, whoever comes next finishes this
    lifecycle.move(
        entry.batch_id, State.USED, Who.RUN, provided=lambda last: last.run_id == run_id, reason=reason
    )  # fmt: skip
    champions = manifests.ancestry(versions.parent_dataset_id(promoted.model_name, warehouse()))
    if promoted.dataset_id not in champions:
        left = f"version {promoted.version} was left by a rollback since"
        lifecycle.move(entry.batch_id, State.SET_ASIDE, Who.ROLLBACK, reason=left)
    open_batches.close(entry.batch_id)
    batches.record([entry.batch_id])
    logger.warning("batch %s: %s", entry.batch_id, reason)
