"""What ``ml_pipeline_dag`` asks: whether there is anything new, and whether the champion's traffic has drifted."""
# Only imported inside tasks.

import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowSkipException
from airflow.models import DagRun
from sqlalchemy.engine import Engine

from include import lake, objects
from include.markdown import plain
from include.monitoring import deciding, results, traffic
from include.orchestration import dvc_stage, learnable, listening, notes, validating
from include.orchestration.warehouse import warehouse
from include.registry import versions
from include.settings import settings
from include.settings.monitoring import MonitoringSettings
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
    seen = objects.read_json(last)["datasets"] if objects.exists(last) else []
    return "" if parent is None or parent in seen else f"the champion's dataset {parent} is not the last run's"


def _left() -> int:
    """How many batches wait that no run of the main pipeline is about to take: it is paused, or has left them."""
    hears = listening.pipeline().hears
    left = (Because.WAITS, Because.GAVE_UP)
    return sum(entry.waiting and (not hears or entry.because in left) for entry in open_batches.lives())


def check_drift(dag_run: DagRun, today: date | None = None) -> dict[str, Any]:
    """What the daily checks say of drift in the last week: whether there was any, and in words."""
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
    return {"drifted": bool(found), "told": told}


def decide_on_rest(
    dag_run: DagRun, drift: dict[str, Any], challenger: dict[str, Any], now: datetime | None = None
) -> dict[str, str]:
    """The decision to retrain because of a drift that is left, by the rules of ``data_validation_dag``; empty if not.

    Left is one that this run has made no new champion against, nor asked a person about one.
    """
    now = now or datetime.now(UTC)
    if not drift["drifted"] or challenger["outcome"] in ("promoted", "awaiting_approval"):
        return {}
    model_name, engine = settings().model_name, warehouse()
    champion = traffic.champion_of(model_name, engine, now)
    if champion is None:
        return {}
    told, new_rows = f"the traffic of this week has drifted ({drift['told']})", learnable.new_rows(model_name)
    decided = deciding.decide_again(
        champion, engine, told, now, new_rows, validating.rules(), actor=f"dag:{dag_run.dag_id}", run=dag_run.run_id
    )
    if decided.verb == "label":
        logger.info("not trained again: there is nothing new to learn from; data_validation_dag asks for labels")
        return {}
    notes.add_to_note(dag_run.dag_id, dag_run.run_id, plain(decided.entry.reason), first=False)
    if decided.verb != "retrain" or not MonitoringSettings().retrain_on_drift:
        return {}
    return {"reason": decided.entry.reason, "decision_id": decided.entry.decision_id}
