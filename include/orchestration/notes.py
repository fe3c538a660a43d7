"""What a run says about itself in Airflow's UI: its note."""

import logging
from typing import Any

from airflow.exceptions import AirflowException
from airflow.models import DagRun
from airflow.utils.session import create_session

from include.markdown import plain
from include.settings import settings

logger = logging.getLogger(__name__)

NOTE_LIMIT = 1000  # characters, the metadata database's


def set_note(dag_id: str, run_id: str, text: str) -> None:
    """Replaces a run's note."""
    # A note refers to the table of users, which Airflow's programs know, and a command of ours does not.
    import airflow.providers.fab.auth_manager.models  # noqa: F401

    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        run.note = text if len(text) <= NOTE_LIMIT else f"{text[: NOTE_LIMIT - 1]}…"


def add_to_note(dag_id: str, run_id: str, text: str, *, first: bool = True) -> None:
    """Adds a sentence to what a run's note says, before it or behind it, once."""
    with create_session() as session:
        before = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one().note or ""
    if text not in before:
        set_note(dag_id, run_id, "\n\n".join(filter(None, (text, before) if first else (before, text))))


def note_failure(context: dict[str, Any]) -> None:
    """Failure callback of every task: the run's note says which task failed and why, without opening a log."""
    task, run, error = context["task_instance"], context["dag_run"], context.get("exception")
    try:
        set_note(run.dag_id, run.run_id, f"**{task.task_id} failed** (try {task.try_number}): {plain(told(error))}")
    except Exception:  # a callback that fails would hide the failure it is about
        logger.exception("could not note the failure of %s", task.task_id)


def told(error: Any) -> str:
    """A failure in words: those of an error of ours as they are, others with their type.

    Airflow itself tells of a task that vanished in words alone, and of one that was set to failed by hand not even so.
    """
    if error is None or isinstance(error, str):
        return error or "nobody said why"
    if type(error).__name__ == "MlflowException" and "Max retries exceeded" in str(error):
        return (
            f"MLflow at {settings().mlflow_tracking_uri} does not answer: start it, or correct MLFLOW_TRACKING_URI, "
            "and clear this task. It was asked for a quarter of an hour; nothing is lost"
        )
    return f"{'' if isinstance(error, AirflowException) else f'{type(error).__name__}: '}{error}"
