"""What a run says about itself in Airflow's UI: its note."""

import logging
import re
from typing import Any

from airflow.exceptions import AirflowException
from airflow.models import DagRun
from airflow.utils.session import create_session

logger = logging.getLogger(__name__)

NOTE_LIMIT = 1000  # characters, the metadata database's

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # the database takes no NUL
# Within a word an underscore means nothing, and names of settings and rules are to stay readable.
_MARKUP = re.compile(r"[\\`*\[\]<>~&|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def set_note(dag_id: str, run_id: str, text: str) -> None:
    """Replaces a run's note."""
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        run.note = text if len(text) <= NOTE_LIMIT else f"{text[: NOTE_LIMIT - 1]}…"


def plain(text: str) -> str:
    """A text that is shown as it is, on one line: notes are Markdown, and file names and labels are anybody's."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(_CONTROL.sub(" ", text).split()))


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
