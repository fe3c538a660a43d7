"""What a run says about itself in Airflow's UI: its note."""

import logging
from typing import Any

from airflow.exceptions import AirflowException
from airflow.models import DagRun
from airflow.utils.session import create_session

from include.markdown import plain

logger = logging.getLogger(__name__)

NOTE_LIMIT = 1000  # characters, the metadata database's


def set_note(dag_id: str, run_id: str, text: str) -> None:
    """Replaces a run's note."""
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        run.note = text if len(text) <= NOTE_LIMIT else f"{text[: NOTE_LIMIT - 1]}…"


def note_failure(context: dict[str, Any]) -> None:
    """Failure callback of every task: the run's note says which task failed and why, without opening a log."""
    task, run, error = context["task_instance"], context["dag_run"], context.get("exception")
    kind = "" if isinstance(error, AirflowException) else f"{type(error).__name__}: "
    try:
        set_note(
            run.dag_id, run.run_id, f"**{task.task_id} failed** (try {task.try_number}): {plain(f'{kind}{error}')}"
        )
    except Exception:  # a callback that fails would hide the failure it is about
        logger.exception("could not note the failure of %s", task.task_id)
