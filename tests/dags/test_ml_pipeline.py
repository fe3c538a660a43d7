"""The week's pipeline: what it waits for, its DVC stage, drift. Real Airflow database, MLflow, S3, SQL and DVC."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.exceptions import AirflowException, TaskDeferred
from airflow.models import DAG, DagBag, DagModel, DagRun
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake
from include.datasets import stage
from include.monitoring import results
from include.monitoring.checks import Check
from include.orchestration import dvc_stage, etl_sensor, intake_steps, pipeline_steps
from include.orchestration.intake_steps import pinned_plan
from include.registry import models
from include.registry.models import CHAMPION
from include.uploads import lifecycle
from tests.dags.road import Road, note, states

pytest_plugins = ["tests.unit.registry_services", "tests.dags.road"]

DAG_ID = "ml_pipeline_dag"
DAGS = Path(__file__).parents[2] / "dags"


def dag() -> Any:
    bag = DagBag(DAGS / f"{DAG_ID}.py", include_examples=False)
    assert not bag.import_errors, bag.import_errors
    return bag.dags[DAG_ID]


def test_a_week_with_something_new_goes_from_its_rows_to_a_champion_and_one_without_is_skipped(road: Road) -> None:
    road.start("cards")
    batch_id = road.waiting()
    done = dag().test(datetime.now(UTC))
    assert done.state == "success"
    found = states(done)
    assert {name for name, state in found.items() if state != "success"} == {"start_retraining"}
    champion = models.by_alias(road.registry.name, CHAMPION)
    assert champion is not None
    assert champion.version == "2"
    assert lifecycle.read(batch_id).state == "used"
    assert done.get_task_instance("preprocess").xcom_pull("preprocess")["ran"] is True
    assert "version 2 has held" in note(done.run_id)
    again = dag().test(datetime.now(UTC))
    assert (again.state, set(states(again).values())) == ("success", {"skipped"})
    assert note(again.run_id).startswith("nothing is new: no upload waits")


def prepared(road: Road) -> tuple[SimpleNamespace, dict[str, Any]]:
    """A run up to its stage, on the champion's own rows."""
    run_id = f"manual__{datetime.now(UTC).isoformat()}"
    at = datetime.now(UTC)
    with create_session() as session:
        DAG(DAG_ID, start_date=at, schedule=None).create_dagrun(
            run_id=run_id, state="running", execution_date=at, data_interval=(at, at), session=session
        )
    run = SimpleNamespace(dag_id=DAG_ID, run_id=run_id, conf={}, run_type="manual")
    return run, intake_steps.validate(run, {"dataset_uri": None})


def test_the_stage_does_nothing_if_nothing_has_changed_and_brings_back_what_is_gone(road: Road) -> None:
    road.start()
    run, validated = prepared(road)
    first = dvc_stage.preprocess(run, validated)
    assert first["ran"] is True
    assert dvc_stage.preprocess(run, validated) == first | {"ran": False}, "the same task, cleared"
    folder = lake.dataset(first["dataset_id"])
    lake.filesystem(folder).rm(folder + "manifest.json")
    another, validated_again = prepared_from_copy(road, run, validated)
    assert dvc_stage.preprocess(another, validated_again) == first | {"ran": False}, "another run of the same rows"
    assert lake.exists(folder + "manifest.json")
    remote = lake.dvc(road.registry.name, "remote/")
    assert lake.find(remote), "data and run-cache lie in the bucket"
    lake.filesystem(remote).rm(remote, recursive=True)
    assert dvc_stage.preprocess(another, validated_again) == first | {"ran": True}, "what was deleted is made again"


def prepared_from_copy(road: Road, run: SimpleNamespace, validated: dict[str, Any]) -> tuple[SimpleNamespace, Any]:
    """A later run of the same plan."""
    another = SimpleNamespace(**{**vars(run), "run_id": f"{run.run_id}-later"})
    pinned_plan(run.run_id).model_copy(update={"run_id": another.run_id}).pin()
    return another, validated


def test_a_stage_that_fails_says_what_dvc_said(road: Road, tmp_path: Path) -> None:
    (tmp_path / stage.ACCEPTED).write_bytes(b"no parquet")
    (tmp_path / stage.FACTS).write_text("{}")
    (tmp_path / stage.PLAN).write_text("{}")
    with pytest.raises(AirflowException, match=r"dvc repro --pull preprocess failed .*preprocess"):
        dvc_stage.reproduce(tmp_path, road.registry.name)


HOLDER = """
import sqlalchemy, sys, time
from include.registry import ledger
with ledger.exclusive(sqlalchemy.create_engine(sys.argv[1]), f"dvc {sys.argv[2]}"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_at_the_stage_wait_and_a_killed_one_holds_nobody_up(road: Road, engine: Engine) -> None:
    arguments = [str(engine.url), road.registry.name]
    with subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        entered = threading.Event()

        def wait_for_it() -> None:
            with dvc_stage.one_at_a_time(road.registry.name):
                entered.set()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not entered.wait(0.3)
        holder.send_signal(signal.SIGKILL)
        assert entered.wait(30)
        waiting.join()


@pytest.fixture
def etl(airflow: None) -> Iterator[Any]:
    """The ETL as Airflow's database has it: its schedule, and its runs."""

    def change(due: datetime | None = None, *, paused: bool = False, run: str = "", run_id: str = "manual__1") -> None:
        with create_session() as session:
            session.merge(
                DagModel(
                    dag_id=etl_sensor.ETL, is_active=True, is_paused=paused, next_dagrun_create_after=due, fileloc="x"
                )
            )
            if run:
                at = datetime.now(UTC)
                DAG(etl_sensor.ETL, start_date=at, schedule=None).create_dagrun(
                    run_id=run_id, state=run, execution_date=at, data_interval=(at, at), session=session
                )

    yield change
    with create_session() as session:
        session.query(DagRun).filter(DagRun.dag_id == etl_sensor.ETL).delete()
        session.query(DagModel).delete()


def test_the_weeks_etl_is_waited_for_whoever_started_it(etl: Any) -> None:
    now = datetime.now(UTC)
    assert etl_sensor.etl_ahead() == "", "there is none"
    etl(due=now + timedelta(days=2))
    assert etl_sensor.etl_ahead() == "", "this week's is over"
    etl(due=now - timedelta(minutes=1))
    assert etl_sensor.etl_ahead().startswith("the run of weekly_etl that is due since ")
    etl(due=now + timedelta(days=2), run="queued", run_id="manual__by-hand")
    assert etl_sensor.etl_ahead() == "the run manual__by-hand of weekly_etl"
    sensor = dag().get_task("check_new_data")
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    assert deferred.value.trigger.serialize()[1] == {"poke_interval": 30}
    etl(due=now - timedelta(minutes=1), paused=True)
    assert etl_sensor.etl_ahead() == "", "what is paused does not go on"


def test_without_a_champion_or_an_upload_there_is_nothing_new(road: Road) -> None:
    run = SimpleNamespace(dag_id=DAG_ID, run_id="x")
    assert pipeline_steps.news(road.registry.name, road.registry.engine) == ""
    road.waiting(3)
    assert pipeline_steps.news(road.registry.name, road.registry.engine) == "1 upload waits for a run"
    assert pipeline_steps.check_new_data(run) == {"new": "1 upload waits for a run"}


def test_drift_is_what_the_daily_checks_say_and_is_not_known_without_them(road: Road, engine: Engine) -> None:
    run = SimpleNamespace(dag_id=DAG_ID, run_id="x")
    today = date(2026, 3, 9)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS monitoring_results"))
    found = pipeline_steps.check_drift(run, today)
    assert found["told"] == "not known: data_validation_dag has entered nothing in the last 7 days"
    bad = Check(name="drift.score", value=1.0, threshold=1.0, verdict="failed", told="labels have moved")
    good = Check(name="drift.label_mix.7", value=0.5, threshold=0.01, verdict="passed", told="p = 0.5")
    for day, check in ((date(2026, 3, 8), bad), (date(2026, 3, 7), good), (date(2026, 3, 2), bad)):
        results.enter(engine, road.registry.name, day, [check])
    results.enter(engine, "another", date(2026, 3, 8), [bad])
    found = pipeline_steps.check_drift(run, today)
    assert found == {"drifted": True, "told": "2026-03-08 drift.score: labels have moved", "week": "2026-W11"}
    later = pipeline_steps.check_drift(run, date(2026, 3, 14))
    assert later["drifted"] is True
    calm = pipeline_steps.check_drift(run, date(2026, 3, 15))
    assert calm["drifted"] is False
    assert pipeline_steps.is_left(found, {"outcome": "rejected"})
    assert not pipeline_steps.is_left(found, {"outcome": "promoted"})
    assert not pipeline_steps.is_left(calm, {"outcome": "rejected"})


def test_a_drift_that_is_left_starts_a_retraining_with_its_reason_once(airflow: None) -> None:
    start = dag().get_task("start_retraining")
    drift = {"told": "2026-03-08 drift/label mix: 0.001 of 0.01", "week": "2026-W11"}
    start.render_template_fields({"ti": SimpleNamespace(xcom_pull=lambda task_ids: drift), "run_id": "manual__1"})
    assert start.trigger_run_id == "ml_pipeline_dag__manual__1"
    assert start.conf == {
        "reason": f"drift in the champion's traffic, and no new champion of the week: {drift['told']}",
        "decision_id": "ml_pipeline_dag-2026-W11",
    }
    assert start.skip_when_already_exists


def test_a_run_that_has_the_id_of_another_dags_run_is_refused(road: Road) -> None:
    road.start()
    run, _ = prepared(road)
    other = SimpleNamespace(**{**vars(run), "dag_id": "weekly_etl"})
    with pytest.raises(AirflowException, match="a run of ml_pipeline_dag has the id manual__"):
        intake_steps.validate(other, {"dataset_uri": None})
