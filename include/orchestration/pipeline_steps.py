"""What ``ml_pipeline_dag`` asks: whether there is anything new, and whether the champion's traffic has drifted."""
# Only imported inside tasks.

import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowSkipException
from airflow.models import DagRun
from sqlalchemy.engine import Engine

from include import lake
from include.markdown import plain
from include.monitoring import results
from include.orchestration import dvc_stage, listening, notes
from include.orchestration.warehouse import warehouse
from include.registry import versions
from include.settings import settings
from include.uploads import open_batches
from include.uploads.lifecycle import Because

logger = logging.getLogger(__name__)

DRIFT_DAYS = 7
SHOWN = 3


def check_new_data(dag_run: DagRun) -> dict[str, Any]:
    """What there is that the last run of this DAG has not seen. Skips the run if there is nothing."""
    new = news(settings().model_name, warehouse())
    if not new:
        told = "nothing is new: no upload waits, and the champion's rows are those of the last run"
        notes.set_note(dag_run.dag_id, dag_run.run_id, plain(told))
        raise AirflowSkipException(told)
    logger.info("%s", new)
    return {"new": new}


def news(model_name: str, engine: Engine) -> str:
    """What is new, in words; empty if nothing is."""
    if waiting := _left():
        return f"{waiting} {'upload waits' if waiting == 1 else 'uploads wait'} for a run"
    parent, last = versions.parent_dataset_id(model_name, engine), lake.dvc(model_name, dvc_stage.LAST)
    seen = lake.read_json(last)["datasets"] if lake.exists(last) else []
    return "" if parent is None or parent in seen else f"the champion's dataset {parent} is not the last run's"


def _left() -> int:
    """How many batches wait that no run of the main pipeline is about to take: it is paused, or has left them."""
    hears = listening.pipeline().hears
    left = (Because.WAITS, Because.GAVE_UP)
    return sum(entry.waiting and (not hears or entry.because in left) for entry in open_batches.lives())


def check_drift(dag_run: DagRun, today: date | None = None) -> dict[str, Any]:
    """What the daily checks say of drift in the last week: whether there was any, in words, and the week's name."""
    today = today or datetime.now(UTC).date()
    first = today - timedelta(days=DRIFT_DAYS - 1)
    checked = results.since(warehouse(), settings().model_name, first, today, "drift.%")
    found = [(day, check) for day, check in reversed(checked) if check.verdict == "failed"]
    if all(check.verdict == "not_checked" for _, check in checked):
        told = f"not known: data_validation_dag has entered nothing in the last {DRIFT_DAYS} days"
    elif not found:
        told = f"none in the last {DRIFT_DAYS} days"
    else:
        told = "; ".join(f"{day:%F} {check.name}: {check.told}" for day, check in found[:SHOWN])
    logger.info("drift: %s", told)
    year, week, _ = today.isocalendar()
    return {"drifted": bool(found), "told": told, "week": f"{year}-W{week:02}"}


def is_left(drift: dict[str, Any], settled: dict[str, Any]) -> bool:
    """Whether a drift is left that this run has made no new champion against, nor asked a person about one."""
    return bool(drift["drifted"]) and settled["outcome"] not in ("promoted", "awaiting_approval")
