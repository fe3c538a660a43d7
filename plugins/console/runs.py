"""What the console asks of Airflow: runs with their tasks, starting one, pauses, and the audit log."""

import json
import secrets
import statistics
from datetime import UTC, datetime
from typing import Any

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import AirflowException, DagRunAlreadyExists
from airflow.models import DagModel, DagRun, Log, TaskInstance, Trigger
from airflow.utils.log.log_reader import TaskLogReader
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from flask import request, url_for
from pydantic import BaseModel
from sqlalchemy import func
from sqlalchemy.orm import joinedload

from include.markdown import shown
from plugins.console.access import PIPELINE, PREVIEW, Refused, person
from plugins.console.catalogue import of_request

OVER = ("success", "failed")
STEPS = {
    "wait_for_data": "Waits for the data",
    "wait_for_turn": "Waits for its turn",
    "validate_data": "Checks each row",
    "load_rows": "Loads the good rows",
    "preprocess_data": "Puts the data set together",
    "train_model": "Trains",
    "evaluate_model": "Compares with the champion",
    "upload_model": "Decides",
}
"""What the pipeline's tasks do, in words, in their order."""

TYPICAL_RUNS = 5
LONGEST_REASON = 1_000  # characters
LOG_LINES = 30


class Step(BaseModel):
    """A task of a run."""

    task_id: str
    title: str
    state: str  # Airflow's; empty: has not begun
    seconds: float | None
    log: str  # the address of its log


class Run(BaseModel):
    """A run of a DAG."""

    dag_id: str
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None
    note: str
    conf: dict[str, Any]
    steps: list[Step] = []

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in OVER


def start(dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
    """Starts a run, and notes in the audit log who did; False if there is one of this name. Raises Refused."""
    with create_session() as session:
        known = session.query(DagModel.dag_id).filter(DagModel.dag_id == dag_id, DagModel.is_active).first()
    if known is None:
        raise Refused(f"Airflow does not know the DAG {dag_id} (yet): look at its import errors", 409)
    try:
        trigger_dag(dag_id, run_id=run_id, conf=conf, replace_microseconds=False)
    except DagRunAlreadyExists:
        return False
    except (ValueError, AirflowException) as error:  # a parameter that is not allowed
        raise Refused(str(error)) from error
    audit("console.start", dag_id, run_id, conf)
    return True


def start_asked(dag_id: str, conf: dict[str, Any]) -> None:
    """Starts a run by which a person's word is carried out. Raises Refused if nobody would."""
    if paused(dag_id):
        raise Refused(of_request()("The DAG {dag} is paused: take it out of its pause first.", dag=dag_id), 409)
    start(dag_id, f"console__{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}", conf)


def reason() -> str:
    """Why somebody asks for something. Raises Refused if he does not say."""
    given = str(request.form.get("reason", "")).strip()
    if not given:
        raise Refused(of_request()("Say why: the ledger keeps it."))
    return given[:LONGEST_REASON]


def audit(event: str, dag_id: str, run_id: str = "", extra: dict[str, Any] | None = None, who: str = "") -> None:
    """An entry of Airflow's audit log, in the name of whoever asks, or of who is said."""
    with create_session() as session:
        session.add(
            Log(
                event=event,
                task_instance=None,
                owner=who or person(),
                extra=json.dumps(extra or {}, ensure_ascii=False, default=str),
                dag_id=dag_id,
                run_id=run_id or None,
            )
        )


def find(dag_id: str, run_id: str) -> Run | None:
    """A run with its tasks; None if there is none."""
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one_or_none()
        if run is None:
            return None
        tasks = session.query(
            TaskInstance.task_id, TaskInstance.state, TaskInstance.start_date, TaskInstance.end_date
        ).filter(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        found = _run(run)
        found.steps = _steps(dag_id, run_id, tasks.all())
        return found


def _steps(dag_id: str, run_id: str, tasks: list[Any]) -> list[Step]:
    order = list(STEPS)
    last = datetime.max.isoformat()

    def place(task: Any) -> tuple[int, str]:
        known = order.index(task.task_id) if task.task_id in order else len(order)
        return known, task.start_date.isoformat() if task.start_date else last

    return [
        Step(
            task_id=task.task_id,
            title=STEPS.get(task.task_id, task.task_id),
            state=str(task.state or ""),
            seconds=(task.end_date - task.start_date).total_seconds() if task.end_date and task.start_date else None,
            log=url_for("Airflow.grid", dag_id=dag_id, dag_run_id=run_id, task_id=task.task_id, tab="logs"),
        )
        for task in sorted(tasks, key=place)
    ]


def log_tail(dag_id: str, run_id: str) -> dict[str, Any]:
    """The last ``lines`` of the log of the ``step`` that is running, or has failed; both empty if there is none."""
    with create_session() as session:
        told_of = TaskInstance.state.in_(("running", "failed"))
        mine = (TaskInstance.dag_id == dag_id) & (TaskInstance.run_id == run_id)
        newest = session.query(TaskInstance).filter(mine, told_of).order_by(TaskInstance.start_date.desc())
        task = newest.options(joinedload(TaskInstance.trigger).joinedload(Trigger.triggerer_job)).first()
        if task is None:
            return {"step": "", "lines": []}
        logs, _ = TaskLogReader().read_log_chunks(task, task.try_number, {})
        lines = [line for _, text in logs[0] for line in text.splitlines()]
        return {"step": STEPS.get(task.task_id, task.task_id), "lines": lines[-LOG_LINES:]}


def recent(dag_id: str, limit: int = 10) -> list[Run]:
    """A DAG's newest runs, without their tasks."""
    with create_session() as session:
        with_notes = session.query(DagRun).options(joinedload(DagRun.dag_run_note))  # else each is asked for alone
        runs = with_notes.filter_by(dag_id=dag_id).order_by(DagRun.execution_date.desc()).limit(limit)
        return [_run(run) for run in runs]


def _run(run: Any) -> Run:
    return Run(
        dag_id=run.dag_id,
        run_id=run.run_id,
        state=str(run.state),
        started=run.start_date,
        ended=run.end_date,
        note=shown(run.note or ""),
        conf=run.conf if isinstance(run.conf, dict) else {},
    )


def is_busy() -> bool:
    """Whether a training is under way: what it learns is not known yet."""
    with create_session() as session:
        unfinished = (DagRunState.QUEUED, DagRunState.RUNNING)
        found = session.query(func.count(DagRun.id)).filter(DagRun.dag_id == PIPELINE, DagRun.state.in_(unfinished))
        return bool(found.scalar())


def typical_seconds() -> float | None:
    """How long a training took, the median of the newest that went well; None if there was none."""
    with create_session() as session:
        ended = (
            session.query(DagRun.start_date, DagRun.end_date)
            .join(TaskInstance, (TaskInstance.dag_id == DagRun.dag_id) & (TaskInstance.run_id == DagRun.run_id))
            .filter(
                DagRun.dag_id == PIPELINE,
                DagRun.state == DagRunState.SUCCESS,
                TaskInstance.task_id == "train_model",
                TaskInstance.state == "success",
            )
            .order_by(DagRun.execution_date.desc())
            .limit(TYPICAL_RUNS)
        )
        seconds = [(end - begin).total_seconds() for begin, end in ended if begin and end]
        return statistics.median(seconds) if seconds else None


def paused(*dag_ids: str) -> list[str]:
    """Which of these DAGs are paused: nothing that waits for them goes on."""
    with create_session() as session:
        found = session.query(DagModel.dag_id).filter(DagModel.dag_id.in_(dag_ids), DagModel.is_paused)
        return sorted(dag_id for (dag_id,) in found)


def unpause(dag_id: str) -> None:
    """Takes a DAG out of its pause, and notes who did."""
    with create_session() as session:
        model = session.query(DagModel).filter_by(dag_id=dag_id).one_or_none()
        if model is None:
            raise Refused(f"Airflow does not know the DAG {dag_id}", 404)
        model.is_paused = False
    audit("console.unpause", dag_id)


def preview_run_id(draft_id: str) -> str:
    """The run that looks at a draft."""
    return f"console__{draft_id}"


def start_preview(draft_id: str, file: str) -> None:
    """Starts the DAG ``preview_upload`` on a draft."""
    start(PREVIEW, preview_run_id(draft_id), {"draft_id": draft_id, "file": file})


def preview_state(draft_id: str) -> Run | None:
    """The run that looks at a draft; None if there is none any more."""
    return find(PREVIEW, preview_run_id(draft_id))
