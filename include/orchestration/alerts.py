"""What Airflow tells of: tasks that fail for good, and runs that take too long."""

import logging
from datetime import timedelta
from typing import Any

from airflow.utils.types import DagRunType

from include import alerts
from include.alerts import Alert
from include.orchestration.notes import note_failure, told

logger = logging.getLogger(__name__)

PRODUCTION_DAGS = ("model_rollback", "watch_canary", "watch_champion")
PRODUCTION_TASKS = ("deploy_new_model", "rollback_model", "deploy", "watch_new_model")
"""Where a failure may leave a champion in production that should not be: told of in quiet hours, too."""


def tell_of_failure(context: dict[str, Any]) -> None:
    """Failure callback of every task, after its last try: the run's note says why, and an alert does."""
    note_failure(context)
    try:
        alerts.raise_alert(failure(context))
    except Exception:  # as there
        logger.exception("could not tell of the failure of %s", context["task_instance"].task_id)


def failure(context: dict[str, Any]) -> Alert:
    """The alert of a task that has failed for good.

    A task that is cleared and fails again is told of again. Of a DAG that always runs, or many times a day, whose runs
    fail one after the other until somebody mends what is wrong, a task is told of once a day.
    """
    task, run, error = context["task_instance"], context["dag_run"], context.get("exception")
    name = f"{run.dag_id}.{task.task_id}{f'[{task.map_index}]' if task.map_index >= 0 else ''}"
    event = f"{name} {run.start_date:%F}" if _runs_often(context) else f"{name} {run.run_id} {task.try_number}"
    return Alert(
        kind="failure",
        key=event,
        title=f"{name} failed",
        text=f"{told(error)}\n\nRun {run.run_id}, try {task.try_number} of {task.max_tries + 1}. Once what is wrong is "
        "mended, clear the task: every task can be run again.",
        links={"log": task.log_url, "run": f"airflow:{run.dag_id}/{run.run_id}"},
        urgent=run.dag_id in PRODUCTION_DAGS or task.task_id in PRODUCTION_TASKS,
    )


def tell_if_timed_out(context: dict[str, Any]) -> None:
    """Failure callback of every DAG: a run that was ended for taking too long; of tasks that fail they tell."""
    if context.get("reason") != "timed_out":
        return
    run = context["dag_run"]
    alerts.raise_alert(
        Alert(
            kind="late",
            key=f"{run.dag_id} {run.run_id} timed out {run.start_date}",
            title=f"{run.dag_id} was ended: it took longer than its time-out",
            text=f"Run {run.run_id} began at {run.start_date:%F %R} UTC. What was still to be done was skipped. Clear "
            "the run to go on with it.",
            links={"run": f"airflow:{run.dag_id}/{run.run_id}"},
        )
    )


def _runs_often(context: dict[str, Any]) -> bool:
    run = context["dag_run"]
    if getattr(context["dag"].timetable, "summary", "") == "@continuous":
        return True
    scheduled = run.run_type == DagRunType.SCHEDULED
    return bool(scheduled and run.data_interval_end - run.data_interval_start < timedelta(days=1))
