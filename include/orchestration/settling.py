"""What becomes of a run's batches when its outcome is known; ``include.uploads.lifecycle`` has the table."""
# Only imported inside tasks.

import hashlib
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from airflow.exceptions import AirflowFailException

from include import lake, objects
from include.datasets import newcomers
from include.datasets.intake import Intake, Plan, Source
from include.datasets.judging import UNAPPROVED
from include.orchestration import batches, golden_rows
from include.registry import ledger
from include.settings import settings
from include.uploads import lifecycle, open_batches
from include.uploads.claims import take
from include.uploads.lifecycle import ENDS, Because, State, Who
from include.uploads.open_batches import in_parallel
from include.uploads.records import Batch, ClaimedFile, read_batch

logger = logging.getLogger(__name__)


def batch_ids(plan: Plan) -> list[str]:
    """The claimed batches among a plan's sources; files named by URI belong to nobody."""
    return sorted({source.batch_id for source in plan.sources if source.uri.startswith(lake.claims(source.batch_id))})


def hold(plan: Plan) -> None:
    """Makes sure that a run still has its batches: one that failed and is cleared later may have lost them.

    Raises AirflowFailException if another run has one of them.
    """
    for batch_id in batch_ids(plan):
        if not take(batch_id, plan.run_id):
            other = lifecycle.read(batch_id)
            raise AirflowFailException(
                f"batch {batch_id} was released when this run had ended, and is {other.state} by run {other.run_id} "
                "now: this run cannot go on with it. Its rows are not lost; start a new run for what you still want"
            )


def settle(plan: Plan, intake: Intake, state: State, because: Because, reason: str) -> list[str]:
    """Moves a run's batches to where its outcome wants them; returns them. Repeated, it changes nothing.

    Files that the run was given by URI and whose rows wait become a batch, so that they are counted like uploads.
    """
    mine, waits = batch_ids(plan), because is Because.WAITS or state is State.AWAITING
    if waits and plan.sources and not mine:
        mine = [_adopt(plan)]
    again, unapproved = _again(intake), _unapproved(intake)
    for batch_id in mine:
        lifecycle.move(
            batch_id,
            State.SET_ASIDE if state is State.USED and batch_id in unapproved else state,
            Who.RUN,
            provided=lambda last: last.run_id == plan.run_id,
            because=because,
            reason=reason[:1000],
            again=again.get(batch_id, []),
        )
        if state in ENDS:
            open_batches.close(batch_id)
    if state is State.USED:
        publish_newcomers(plan, intake)
    if state in (State.SET_ASIDE, State.AWAITING):
        newcomers.set_aside(plan.model_name, plan.run_id, intake.newcomers)
    batches.record(mine)
    return mine


def settle_awaiting(plan: Plan, intake: Intake, state: State, because: Because, reason: str) -> list[str]:
    """Moves the batches of a run whose challenger has waited for a person, likewise."""
    if state is State.USED:
        publish_newcomers(plan, intake)
    if state is State.RELEASED:
        newcomers.take_back(plan.model_name, plan.run_id)
    mine, unapproved = awaiting(plan.run_id), _unapproved(intake)
    for batch_id in mine:  # last: as long as they wait, whoever comes next finishes this
        lifecycle.move(
            batch_id,
            State.SET_ASIDE if state is State.USED and batch_id in unapproved else state,
            Who.DECISION,
            because=because,
            reason=reason[:1000],
            anew=state is State.RELEASED,
        )
        open_batches.close(batch_id)
    batches.record(mine)
    return mine


def publish_newcomers(plan: Plan, intake: Intake) -> None:
    """Lets those rows of a run wait that are still too new, in place of what had waited before it."""
    newcomers.publish(plan.model_name, plan.run_id, [source.uri for source in plan.newcomers], intake.newcomers)


def awaiting(run_id: str) -> list[str]:
    """The batches that wait for a person's decision about a run's challenger."""
    return [one.batch_id for one in open_batches.lives() if one.state is State.AWAITING and one.run_id == run_id]


def _again(intake: Intake) -> dict[str, list[str]]:
    """The files of which no row was used, by batch: uploaded again they are new, whatever they were before."""
    unused = {(file.batch_id, file.key) for file in intake.files if not file.used and not file.waiting}
    owners = sorted({batch_id for batch_id, _ in unused})
    found = [batch for batch in in_parallel(read_batch, owners) if batch is not None]
    return {
        batch.batch_id: [file.mark for file in batch.files if (batch.batch_id, file.key) in unused] for batch in found
    }


def _unapproved(intake: Intake) -> set[str]:
    """The batches of which a file waits for a person's word, whatever became of the others."""
    return {file.batch_id for file in intake.files if UNAPPROVED in file.waits_for}


def _adopt(plan: Plan) -> str:
    """Makes a batch, which this run has taken, of the files that it copied from where they were named."""
    etags = [objects.etag(source.uri) or "" for source in plan.sources]
    content = "\n".join(f"{source.key} {etag}" for source, etag in zip(plan.sources, etags, strict=True))
    batch_id = f"{plan.sources[0].batch_id}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    files = [
        _adopted(batch_id, at, source, etag)
        for at, (source, etag) in enumerate(zip(plan.sources, etags, strict=True))
    ]  # fmt: skip
    open_batches.mark(batch_id)
    batch = Batch(batch_id=batch_id, files=files)
    objects.create_bytes(lake.claims(batch_id, "manifest.json"), batch.model_dump_json(indent=2).encode())
    take(batch_id, plan.run_id)
    logger.info("the files named by URI wait as batch %s", batch_id)
    return batch_id


def _adopted(batch_id: str, at: int, source: Source, etag: str) -> ClaimedFile:
    target = lake.claims(batch_id, f"files/{at}/{lake.plain(source.uri.rsplit('/', 1)[-1])}")
    files = objects.filesystem(source.uri)
    files.cp_file(source.uri, target)
    size = int(files.info(target)["size"])
    return ClaimedFile(key=source.key, etag=etag, size=size, uri=target, claimed_at=datetime.now(UTC))


def set_aside(run_ids: Iterable[str], reason: str) -> None:
    """Sets the used batches of runs aside: a rollback leaves their rows."""
    mine = _batches_of(run_ids)
    batches.record([one for one in mine if lifecycle.move(one, State.SET_ASIDE, Who.ROLLBACK, reason=reason)])


def restore(run_ids: Iterable[str], reason: str) -> None:
    """Counts batches as used again that a rollback had set aside."""

    def by_rollback(last: lifecycle.Entry) -> bool:
        return last.who is Who.ROLLBACK

    moves = {
        one: lifecycle.move(one, State.USED, Who.ROLLBACK, provided=by_rollback, reason=reason)
        for one in _batches_of(run_ids)
    }
    batches.record([one for one, moved in moves.items() if moved])


def readmit(run_id: str, reason: str, *, approve: bool = False) -> list[str]:
    """Takes the rows back that a run has set aside; returns its batches that wait for the next run now.

    Of a run without batches the URIs of the rows that had waited before it. With ``approve``, their files may change as
    many golden labels as they want to, and so may rows of earlier batches that the run left waiting for approval.
    """
    mine = _batches_of([run_id])
    lives = [lifecycle.read(batch_id) for batch_id in mine]
    back, waited, earlier = [], [], sorted(_left_unapproved(run_id)) if approve else []
    # A run may have had no upload. But what waits for a person, or is in the champion, stays where it is.
    if any(one.state is State.SET_ASIDE or one.because is Because.READMITTED for one in lives) or not lives:
        waited = newcomers.take_back(settings().model_name, run_id)
    for batch_id in [*mine, *earlier] if approve else []:
        golden_rows.approve(batch_id, reason)
    for batch_id in mine:
        moved = lifecycle.move(
            batch_id, State.RELEASED, Who.PERSON, anew=True, because=Because.READMITTED, reason=reason
        )
        # Before this, a run that starts does not see it; cut off here, the command is repeated.
        if moved or lifecycle.read(batch_id).because is Because.READMITTED:
            open_batches.mark(batch_id)
            back.append(batch_id)
    batches.record(back)
    return [*(back or waited), *earlier]


def _left_unapproved(run_id: str) -> set[str]:
    """The earlier batches of which rows waited for a person's word when a run ended, by its report."""
    report = report_of(run_id)
    found = {file["batch_id"] for file in report.get("files", []) if UNAPPROVED in file.get("waits_for", [])}
    return found - {*report.get("batches", [])}


def _batches_of(run_ids: Iterable[str]) -> list[str]:
    """The batches that these runs had last, by their reports."""
    ids = set(run_ids)
    named = {name for run_id in ids for name in report_of(run_id).get("batches", [])}
    found = sorted(name for name in named if read_batch(name) is not None)
    return [name for name in found if lifecycle.read(name).run_id in ids]


def report_of(run_id: str) -> dict[str, Any]:
    """How a run ended, whichever DAG's it was; empty if nobody knows."""
    uri = ledger.left_by(run_id, "run.json")
    return objects.read_json(uri) if uri else {}
