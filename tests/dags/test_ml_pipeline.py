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

from include import lake, objects
from include.datasets import stage
from include.monitoring import results
from include.monitoring.checks import Check
from include.orchestration import dvc_stage, etl_sensor, intake_steps, pipeline_steps
from include.orchestration.intake_steps import pinned_plan
from include.registry import ledger, models
from include.registry.models import CHAMPION
from include.serving import feedback
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
    first = done.get_task_instance("preprocess").xcom_pull("preprocess")
    assert first["ran"] is True
    assert "version 2 has held" in note(done.run_id)
    again = dag().test(datetime.now(UTC))
    assert (again.state, set(states(again).values())) == ("success", {"skipped"})
    assert note(again.run_id).startswith("nothing is new: no upload waits")
    _stage_does_nothing_if_nothing_has_changed_and_brings_back_what_is_gone(road, done, first)


def _stage_does_nothing_if_nothing_has_changed_and_brings_back_what_is_gone(
    road: Road, done: DagRun, first: dict[str, Any]
) -> None:
    validated = done.get_task_instance("validate_data").xcom_pull("validate_data")
    folder = lake.dataset(first["dataset_id"])
    objects.filesystem(folder).rm(folder + "manifest.json")
    another = SimpleNamespace(dag_id=DAG_ID, run_id=f"{done.run_id}-later")
    pinned_plan(done.run_id).model_copy(update={"run_id": another.run_id, "sources": []}).pin()
    facts = objects.read_bytes(lake.staging(done.run_id, stage.FACTS))  # since then the champion is another
    objects.write_bytes(lake.staging(another.run_id, stage.FACTS), facts)
    assert dvc_stage.preprocess(another, validated) == first | {"ran": False}, "another run of the same rows"
    assert objects.exists(folder + "manifest.json")
    remote = lake.dvc(road.registry.name, "remote/")
    assert objects.find(remote), "data and run-cache lie in the bucket"
    objects.filesystem(remote).rm(remote, recursive=True)
    assert dvc_stage.preprocess(another, validated) == first | {"ran": True}, "what was deleted is made again"


def begun(dag_id: str = DAG_ID) -> SimpleNamespace:
    """A run that Airflow's database knows."""
    run_id = f"manual__{datetime.now(UTC).isoformat()}"
    at = datetime.now(UTC)
    with create_session() as session:
        DAG(dag_id, start_date=at, schedule=None).create_dagrun(
            run_id=run_id, state="running", execution_date=at, data_interval=(at, at), session=session
        )
    return SimpleNamespace(dag_id=dag_id, run_id=run_id, conf={}, run_type="manual")


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
        sensor.execute({"ti": SimpleNamespace(start_date=now - timedelta(hours=47))})
    assert deferred.value.trigger.serialize()[1] == {"poke_interval": 30}
    assert deferred.value.timeout <= timedelta(hours=1), "no run of the ETL takes longer than two days"
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
    assert found == {"drifted": True, "told": "2026-03-08 drift.score: labels have moved"}
    later = pipeline_steps.check_drift(run, date(2026, 3, 14))
    assert later["drifted"] is True
    calm = pipeline_steps.check_drift(run, date(2026, 3, 15))
    assert calm["drifted"] is False


def test_a_drift_that_is_left_starts_a_retraining_as_the_rules_of_the_daily_decision_allow(road: Road) -> None:
    road.start()
    found = {"drifted": True, "told": "labels have moved"}

    def rest(run: SimpleNamespace, days: int, outcome: str = "rejected") -> dict[str, str]:
        now = datetime.now(UTC) + timedelta(days=days)
        return pipeline_steps.decide_on_rest(run, found, {"outcome": outcome}, now)

    first, another, third = begun(), begun(), begun()
    assert rest(first, 20, "promoted") == rest(first, 20, "awaiting_approval") == {}
    assert decisions(road) == []
    assert rest(first, 3) == {}, "the champion is new"
    assert rest(another, 20) == {}, "there is nothing to learn from"
    for number in range(60):
        feedback.keep(road.registry.name, {"prediction_id": f"answer-{number}", "label": "card"}, datetime.now(UTC))
    started = rest(third, 40)
    assert started["reason"] == (
        "the traffic of this week has drifted (labels have moved), and there are 60 new labelled rows to learn from"
    )
    assert rest(third, 41) == started, "the same task, cleared"
    assert decisions(road) == ["wait", "retrain"]
    start = dag().get_task("start_retraining")
    start.render_template_fields({"ti": SimpleNamespace(xcom_pull=lambda task_ids: started), "run_id": third.run_id})
    assert (start.trigger_run_id, start.conf) == (f"drift__{started['decision_id']}", started)
    assert start.skip_when_already_exists


def decisions(road: Road) -> list[str]:
    found = ledger.entries(road.registry.engine, road.registry.name, verbs=["drift_decision"])
    return [one.facts["decision"] for one in reversed(found)]


def test_a_run_that_has_the_id_of_another_dags_run_is_refused(road: Road) -> None:
    road.start()
    run = begun()
    intake_steps.validate(run, {"dataset_uri": None})
    other = SimpleNamespace(**{**vars(run), "dag_id": "weekly_etl"})
    with pytest.raises(AirflowException, match="a run of ml_pipeline_dag has the id manual__"):
        intake_steps.validate(other, {"dataset_uri": None})
