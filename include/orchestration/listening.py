"""One round of the upload listener: claim what was uploaded, and tell the pipeline of whatever waits for a run."""
# Only imported inside tasks.

import logging
import time
from collections.abc import Callable
from datetime import datetime

from airflow.datasets.manager import dataset_manager
from airflow.models import DagModel, DagRun, TaskInstance
from airflow.models.dataset import DagScheduleDatasetReference, DatasetDagRunQueue, DatasetModel
from airflow.stats import Stats
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, State
from sqlalchemy.exc import SQLAlchemyError

from include import alerts, lake
from include.alerts import Alert
from include.markdown import plain
from include.orchestration import batches, reconciling
from include.orchestration.events import INCOMING
from include.orchestration.notes import set_note
from include.settings import settings
from include.uploads import claims, lifecycle, open_batches, probe, refusals, rounds
from include.uploads.lifecycle import Because, Entry
from include.uploads.rounds import Pipeline, Step

logger = logging.getLogger(__name__)

TAKING_TASK = "validate_data"  # a run in which it has not begun will take what waits
NEXT_LOOK_SECONDS = 2.0
IDLE_LOOK_SECONDS = 900.0
STUCK_AFTER_TRIES = 3  # to copy an upload; it may have been a moment's fault


def listen(dag_id: str, run_id: str, timestamp: str) -> list[str]:
    """Claims uploads, releases and gives up what runs have left; returns the batches that an event has to tell of."""
    probe.require_fit_store()
    batches.reopen_old()
    try:
        claimed = claims.claim_uploads(claims.batch_id_of(timestamp, run_id))
    except claims.ClaimError:  # logged, and noted below: the batches that wait must not wait for this one
        claimed = []
    told = _tell({batch.batch_id for batch in claimed}, run_id)
    entries = open_batches.lives()
    Stats.gauge("uploads_waiting", sum(entry.waiting for entry in entries))
    batches.record([entry.batch_id for entry in entries])
    refused, damaged = refusals.known(), open_batches.damaged()
    _tell_of_what_cannot_move(refused, damaged)
    if note := _note(entries, refused, pipeline(), damaged):
        set_note(dag_id, run_id, note)
    if refused and not claimed and not told:
        _wait_for_another(refused)
    return told


def announce(caller: str) -> None:
    """Tells the pipeline now, outside of a task, of all that waits to be told of; the listener does so otherwise."""
    if told := _tell(set(), caller):
        with create_session() as session:
            dataset_manager.register_dataset_change(dataset=INCOMING, extra={"batches": told}, session=session)


def due() -> bool:
    """Whether there is something to do about a batch, apart from new uploads."""
    try:
        entries = open_batches.lives()
        state = pipeline() if entries else None
        return state is not None and any(rounds.next_step(entry, state) for entry in entries)
    except SQLAlchemyError:  # the next look is soon
        logger.exception("cannot see in Airflow's database which runs there are")
        return False


def look_seconds(longest: float) -> float:
    """How long to wait for uploads until the next look at open batches; longer if there are none, at most this."""
    return min(settings().batches_look_seconds if open_batches.ids() else IDLE_LOOK_SECONDS, longest)


def pipeline() -> Pipeline:
    """What Airflow knows of the DAGs that an upload starts."""
    with create_session() as session:
        consumers = (
            session.query(DagModel)
            .join(DagScheduleDatasetReference, DagScheduleDatasetReference.dag_id == DagModel.dag_id)
            .join(DatasetModel, DatasetModel.id == DagScheduleDatasetReference.dataset_id)
            .filter(DatasetModel.uri == INCOMING.uri, DagModel.is_active)
            .all()
        )
        ids = [dag.dag_id for dag in consumers]
        events = session.query(DatasetDagRunQueue).filter(DatasetDagRunQueue.target_dag_id.in_(ids)).count()
        runs = session.query(DagRun.run_id, DagRun.state).filter(
            DagRun.dag_id.in_(ids), DagRun.state.in_(State.unfinished_dr_states)
        )
        unfinished = dict(list(runs))
        begun = session.query(TaskInstance.run_id).filter(
            TaskInstance.dag_id.in_(ids),
            TaskInstance.task_id == TAKING_TASK,
            TaskInstance.run_id.in_(unfinished),
            TaskInstance.start_date.is_not(None),
        )
        taking = {run_id for (run_id,) in begun}
        # The sensor's tasks of a run without a worker are running, too: what counts is whether it has taken yet.
        coming = [run_id for run_id, state in unfinished.items() if state == DagRunState.QUEUED or run_id not in taking]
        return Pipeline(
            hears=any(not dag.is_paused for dag in consumers),
            will_come=bool(events or [run_id for run_id in coming if run_id.startswith("dataset_triggered__")]),
            busy=bool(events or unfinished),
            is_over=_is_over,
        )


def _is_over(run_id: str) -> bool:
    with create_session() as session:
        found = session.query(DagRun.id).filter(DagRun.run_id == run_id, DagRun.state.in_(State.unfinished_dr_states))
        return found.first() is None


def _tell(claimed: set[str], caller: str) -> list[str]:
    """Moves each open batch on; returns those of which an event has to tell.

    A run that is still to begin takes what was sealed before, too, so nothing more needs to be sent then.
    """
    state = pipeline()
    reconciling.release_abandoned(state)
    told = []
    for entry in open_batches.lives():
        step = rounds.next_step(entry, state)
        came_again = entry.batch_id in claimed and entry.state is not lifecycle.State.CLAIMED and entry.waiting
        if step is Step.TELL or (came_again and entry.caller != caller):
            told += [entry.batch_id] if rounds.tell(entry.batch_id, caller, anew=came_again) else []
        elif entry.state is lifecycle.State.TOLD and entry.caller == caller:  # before this task was cut off
            told.append(entry.batch_id)
        elif step is Step.GIVE_UP and (given_up := rounds.give_up(entry)):
            _alert(given_up)
    return told if state.hears and not state.will_come else []


def _alert(entry: Entry) -> None:
    logger.error(
        "batch %s waits for a person: %s. Its files are used by the next run; to start one, trigger the pipeline or "
        "upload one of them again",
        entry.batch_id, entry.reason,
    )  # fmt: skip
    Stats.incr("uploads_given_up")
    alerts.raise_alert(
        Alert(
            kind="stuck_upload",
            key=f"{entry.batch_id} given up {entry.number}",
            title=f"An upload waits for a person: batch {entry.batch_id}",
            text=f"{entry.reason}\n\nIts files are used by the next run. To start one, trigger the pipeline or upload "
            "one of them again.",
            links={"files": lake.claims(entry.batch_id)},
        )
    )


def _tell_of_what_cannot_move(refused: list[refusals.Refusal], damaged: list[str]) -> None:
    """Alerts about uploads that cannot be claimed and batches that no run can read, once each."""
    for one in refused:
        if one.tries >= STUCK_AFTER_TRIES:
            text = f"{one.reason}\n\nTried {one.tries} times since {one.since:%F %R} UTC; it is tried again."
            alerts.raise_alert(
                Alert("stuck_upload", f"{one.key} {one.etag}", f"An upload cannot be copied: {one.key}", text)
            )
    for batch_id in damaged:
        text = "No run uses this batch's files until the earlier version of its manifest is brought back."
        title = f"An upload's manifest is damaged: batch {batch_id}"
        link = {"manifest": lake.claims(batch_id, "manifest.json")}
        alerts.raise_alert(Alert("stuck_upload", f"{batch_id} damaged", title, text, link))


def _note(entries: list[Entry], refused: list[refusals.Refusal], state: Pipeline, damaged: list[str]) -> str:
    """What somebody should look at, for the listener's run; empty if all is well."""
    lines = [
        f"**{one.key} cannot be copied** ({one.tries} tries since {one.since:%F %R}): {one.reason}" for one in refused
    ]
    lines += [
        f"**batch {entry.batch_id} waits for a person**: {entry.reason}. The next run uses it."
        for entry in entries
        if entry.because is Because.GAVE_UP
    ]
    lines += [
        f"**{lake.claims(batch_id, 'manifest.json')} is damaged**: no run uses this batch's files until its earlier "
        "version is brought back."
        for batch_id in damaged
    ]
    lines += _awaiting(entries)
    waiting = sum(entry.waiting and entry.because not in (Because.WAITS, Because.GAVE_UP) for entry in entries)
    if waiting and not state.hears:
        lines.append(f"**{waiting} batch(es) wait**: the training pipeline is paused. They are told of when it is not.")
    return "\n\n".join(lines)


def _awaiting(entries: list[Entry]) -> list[str]:
    """A line for each run whose challenger waits for a person."""
    since: dict[str, datetime] = {}
    for entry in entries:
        if entry.state is lifecycle.State.AWAITING:
            since.setdefault(entry.run_id, entry.at)
    return [
        f"**a challenger waits for a person** since {at:%F %R}: make approve RUN='{plain(run_id)}' NAME=… REASON=…, or "
        "make reject, or the DAG decide_challenger"
        for run_id, at in since.items()
    ]


def _wait_for_another(refused: list[refusals.Refusal], sleep: Callable[[float], None] = time.sleep) -> None:
    """Holds the next round back while nothing lies in incoming/ but what cannot be copied: that wakes it at once."""
    deadline = time.monotonic() + settings().batches_look_seconds
    known = {(one.key, one.etag) for one in refused}
    while time.monotonic() < deadline and not due():
        if any((upload.key, upload.etag) not in known for upload in claims.uploads()):
            return
        sleep(NEXT_LOOK_SECONDS)
