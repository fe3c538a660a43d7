"""Weeks of scheduled runs, made as Airflow's scheduler makes them: real Airflow database, the plugin, another clock."""

import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import airflow.settings
import pytest
import time_machine
from airflow import plugins_manager
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import DagBag, DagModel, DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session

from include import lake
from include.settings import settings

ROOT = Path(__file__).parents[2]
OWN = ("ml_pipeline_dag", "model_retraining_dag")
SUNDAYS = [datetime(2031, 1, 5, 0, 5, tzinfo=UTC) + timedelta(days=7 * number) for number in range(5)]


@pytest.fixture
def dag_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """Both DAGs weekly, in a database from which they are read by the plugin."""
    monkeypatch.setenv("BERT_RETRAIN_SCHEDULE", "@weekly")
    settings.cache_clear()
    shutil.copy(ROOT / "plugins" / "own_run_ids.py", tmp_path)
    monkeypatch.setattr(airflow.settings, "PLUGINS_FOLDER", str(tmp_path))
    for cache in ("plugins", "timetable_classes"):
        monkeypatch.setattr(plugins_manager, cache, None)
    monkeypatch.setattr(plugins_manager, "loaded_plugins", set())
    initdb(load_connections=False)
    yield OWN
    settings.cache_clear()
    with create_session() as session:
        for table in (DagRun, SerializedDagModel, DagModel):
            session.query(table).filter(table.dag_id.in_(OWN)).delete()


def test_runs_of_dags_that_are_due_together_have_their_own_ids_and_files_every_week(dag_ids: tuple[str, ...]) -> None:
    scheduler = SchedulerJobRunner(Job())
    for now in SUNDAYS:
        with time_machine.travel(now, tick=False), create_session() as session:
            for dag_id in dag_ids:  # as the DAG processor does again and again
                bag = DagBag(ROOT / "dags" / f"{dag_id}.py", include_examples=False)
                bag.sync_to_db(session=session)
            session.flush()
            due = session.query(DagModel).filter(DagModel.dag_id.in_(dag_ids), DagModel.next_dagrun_create_after <= now)
            scheduler.dagbag = DagBag(read_dags_from_db=True)
            scheduler._create_dag_runs(due.all(), session)
            session.flush()
            session.query(DagRun).filter(DagRun.dag_id.in_(dag_ids)).update({"state": "success"})
    with create_session() as session:
        runs = session.query(DagRun.dag_id, DagRun.run_id, DagRun.data_interval_end, DagRun.run_type).filter(
            DagRun.dag_id.in_(dag_ids)
        )
        found = runs.order_by(DagRun.data_interval_end, DagRun.dag_id).all()
    assert {one.run_type for one in found} == {"scheduled"}
    assert [(one.dag_id, one.data_interval_end) for one in found] == [
        (dag_id, sunday.replace(minute=0)) for sunday in SUNDAYS for dag_id in dag_ids
    ]
    for one in found:
        assert (
            one.run_id
            == f"scheduled__{one.data_interval_end - timedelta(days=7):%Y-%m-%dT%H:%M:%S+00:00}__{one.dag_id}"
        )
    assert max(Counter(lake.slug(one.run_id) for one in found).values()) == 1
