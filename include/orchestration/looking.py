"""What nobody would be told of by an event: runs that take too long, uploads that wait too long."""
# Only imported inside tasks and triggers.

import time
from datetime import UTC, datetime, timedelta

from airflow.models import DagModel, DagRun, DagTag
from airflow.timetables.simple import ContinuousTimetable
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState

from include import alerts, lake
from include.alerts import Alert
from include.orchestration import canaries, gauges, watching
from include.orchestration.warehouse import warehouse
from include.registry import ledger
from include.settings import settings
from include.uploads import open_batches
from include.uploads.lifecycle import Because, Entry
from include.uploads.records import read_batch

OURS = "bert"  # the tag of all DAGs of this project
SLOW_LOOK_SECONDS = 600.0  # at what costs several requests
_looked: dict[str, float] = {}


def look(model_name: str) -> None:
    """Looks at runs each time, and at uploads and the model's age now and then."""
    tell_of_late_runs(model_name)
    if time.monotonic() - _looked.get(model_name, -SLOW_LOOK_SECONDS) >= SLOW_LOOK_SECONDS:
        _looked[model_name] = time.monotonic()
        tell_of_stuck_uploads(model_name)
        show_age(model_name)


def tell_of_late_runs(model_name: str, now: datetime | None = None) -> None:
    """An alert for each run of this project's that should have ended; DAGs that always run are left out."""
    now = now or datetime.now(UTC)
    with create_session() as session:
        found = (
            session.query(DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.queued_at, DagRun.start_date)
            .join(DagModel, DagModel.dag_id == DagRun.dag_id)
            .filter(DagRun.state.in_([DagRunState.RUNNING, DagRunState.QUEUED]), DagModel.is_active)
            .filter(~DagModel.is_paused, DagModel.tags.any(DagTag.name == OURS))
            .filter(DagModel.timetable_description.is_distinct_from(ContinuousTimetable.description))
            .all()
        )
    for dag_id, run_id, state, queued_at, start_date in found:
        since = start_date if state == DagRunState.RUNNING else queued_at
        longest, told = _longest(dag_id)
        if since is None or now - since < longest:
            continue
        begun = "runs" if state == DagRunState.RUNNING else "waits to begin"
        alerts.raise_alert(
            Alert(
                kind="late",
                key=f"{dag_id} {run_id} {begun} {since}",
                title=f"{dag_id} {begun} since {since:%F %R} UTC",
                text=f"Run {run_id} {begun} for more than {told}. "
                "Its grid shows which task it is at, and that task's log why.",
                links={"run": f"airflow:{dag_id}/{run_id}"},
            ),
            model_name,
        )


def _longest(dag_id: str) -> tuple[timedelta, str]:
    """How long a run may take, or wait for the one before it; in words, too. One that watches takes longer by that."""
    config = settings()
    if dag_id in (watching.DAG_ID, *watching.WATCH_THEMSELVES):
        minutes, told = config.late_minutes + config.watch_minutes, "BERT_LATE_MINUTES and BERT_WATCH_MINUTES"
    elif dag_id == canaries.DAG_ID:
        minutes, told = config.late_minutes + config.canary_minutes, "BERT_LATE_MINUTES and BERT_CANARY_MINUTES"
    else:
        minutes, told = config.late_minutes, "BERT_LATE_MINUTES"
    return timedelta(minutes=minutes), f"{minutes:g} minutes ({told})"


def tell_of_stuck_uploads(model_name: str, now: datetime | None = None) -> None:
    """An alert for each batch of uploads that no run has used for long."""
    now = now or datetime.now(UTC)
    for entry in open_batches.lives():
        told = entry.because is Because.GAVE_UP  # in the moment that it was given up
        since = _since(entry)
        if entry.waiting and not told and now - since > timedelta(hours=settings().stuck_hours):
            alerts.raise_alert(_stuck(entry, since), model_name)


def _since(entry: Entry) -> datetime:
    """When a batch was moved last; one that never was, when its files were claimed."""
    if entry.number:
        return entry.at
    batch = read_batch(entry.batch_id)
    return max((file.claimed_at for file in batch.files), default=entry.at) if batch else datetime.now(UTC)


def _stuck(entry: Entry, since: datetime) -> Alert:
    return Alert(
        kind="stuck_upload",
        key=f"{entry.batch_id} waits since {since.isoformat()}",
        title=f"An upload waits since {since:%F %R} UTC: batch {entry.batch_id}",
        text=f"It is {entry.state}{f' ({entry.because})' if entry.because else ''}"
        f"{f': {entry.reason}' if entry.reason else ''}. No run has used it for {settings().stuck_hours:g} hours "
        "(BERT_STUCK_HOURS). Is the training pipeline paused? docs/uploads.md says what moves a batch.",
        links={"files": lake.claims(entry.batch_id)},
    )


def show_age(model_name: str) -> None:
    """Days since a model was last trained, as a metric; none before the first."""
    trained = ledger.entries(warehouse(), model_name, verbs=("promote", "reject", "await"), limit=1)
    if trained:
        days = (datetime.now(UTC) - trained[0].decided_at).total_seconds() / 86_400
        gauges.show(model_name, days_since_training=days)
