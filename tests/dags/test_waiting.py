"""Sensors that wait without a worker, as Airflow's own scheduler ends their waits."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.exceptions import AirflowSensorTimeout
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import DAG, DagRun, TaskInstance
from airflow.triggers.temporal import DateTimeTrigger
from airflow.utils.db import initdb
from airflow.utils.session import create_session

from include.orchestration.waiting_sensor import WaitingSensor

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Sign(WaitingSensor):
    """Waits for a sign, which a trigger would give in an hour."""

    seen = False

    def execute(self, context: Any) -> str:
        if not self.seen:
            self.wait(context, DateTimeTrigger(moment=datetime.now(UTC) + timedelta(hours=1)), "a sign")
        return "seen"


@pytest.fixture
def waiting() -> Iterator[TaskInstance]:
    """A task that waits, for a minute at most."""
    initdb(load_connections=False)
    with DAG("signs", start_date=BEGIN, schedule=None) as dag:
        sensor = Sign(task_id="sign", timeout=60, retries=3)
    run = dag.create_dagrun(run_id="x", state="running", execution_date=BEGIN, data_interval=(BEGIN, BEGIN))
    (task,) = run.get_task_instances()
    task.refresh_from_task(sensor)
    task.run()
    assert task.state == "deferred"
    yield task
    with create_session() as session:
        session.query(DagRun).filter_by(dag_id="signs").delete()


def ended_by_the_scheduler(waiting: TaskInstance) -> None:
    """Two minutes pass, and no triggerer has been there."""
    with create_session() as session:
        session.query(TaskInstance).filter_by(dag_id="signs").update(
            {name: getattr(waiting, name) - timedelta(minutes=2) for name in ("start_date", "trigger_timeout")}
        )
    SchedulerJobRunner(Job()).check_trigger_timeouts()
    waiting.refresh_from_db()
    assert (waiting.state, waiting.next_method) == ("scheduled", "__fail__")


def test_a_wait_ends_with_the_sensors_time_and_is_not_tried_again(waiting: TaskInstance) -> None:
    ended_by_the_scheduler(waiting)
    with pytest.raises(AirflowSensorTimeout, match="waited for a sign for 0:01:00, and no longer"):
        waiting.run(ignore_ti_state=True)
    assert waiting.state == "failed"


def test_what_has_come_while_no_triggerer_was_there_is_seen_at_the_end(
    waiting: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sign, "seen", True)
    ended_by_the_scheduler(waiting)
    waiting.run(ignore_ti_state=True)
    assert waiting.state == "success"
