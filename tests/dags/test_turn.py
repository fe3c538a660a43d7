"""Whose turn it is, with a real metadata database."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.exceptions import TaskDeferred
from airflow.models import DAG, DagRun
from airflow.operators.empty import EmptyOperator
from airflow.utils.db import initdb
from airflow.utils.module_loading import import_string
from airflow.utils.session import create_session

from include.orchestration.turn_sensor import TurnSensor, run_ahead
from include.orchestration.waiting_sensor import TIMED_OUT

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def database() -> None:
    initdb(load_connections=False)


@pytest.fixture
def dag(database: None) -> Iterator[DAG]:
    with DAG("queue", start_date=BEGIN, schedule=None) as dag:
        EmptyOperator(task_id="wait_for_data") >> TurnSensor(
            task_id="wait_for_turn", after="wait_for_data", poke_interval=0.05
        )
    yield dag
    with create_session() as session:
        session.query(DagRun).delete()


@pytest.fixture
def run(dag: DAG) -> Callable[..., str]:
    """Makes a run, or changes it: when it had its data, whether it had its turn, how it stands."""

    def make(run_id: str, data: int | None, turn: str | None = None, state: str = "running") -> str:
        with create_session() as session:
            found = session.query(DagRun).filter_by(dag_id="queue", run_id=run_id).one_or_none()
            if found is None:
                at = BEGIN + timedelta(seconds=session.query(DagRun).count())
                found = dag.create_dagrun(
                    run_id=run_id, state=state, execution_date=at, data_interval=(at, at), session=session
                )
            found.state = state
            tasks = {task.task_id: task for task in found.get_task_instances(session=session)}
            tasks["wait_for_data"].state = None if data is None else "success"
            tasks["wait_for_data"].end_date = None if data is None else BEGIN + timedelta(minutes=data)
            tasks["wait_for_turn"].state = turn
        return run_id

    return make


def ahead_of(run_id: str) -> str | None:
    return run_ahead("queue", run_id, "wait_for_turn", "wait_for_data")


def test_the_run_that_had_its_data_first_goes_on_first(run: Any) -> None:
    late, early, same = run("a", 2), run("b", 1), run("c", 1)
    assert [ahead_of(one) for one in (early, same, late)] == [None, early, early]


def test_a_run_that_still_waits_for_its_data_is_in_nobodys_way(run: Any) -> None:
    run("a", None)
    assert ahead_of(run("b", 5)) is None


def test_a_run_that_has_gone_on_is_waited_for_until_it_is_over(run: Any) -> None:
    one, other = run("a", 9, turn="success"), run("b", 1)
    assert ahead_of(other) == one
    for state in ("success", "failed", "queued"):
        run("a", 9, turn="success", state=state)
        assert ahead_of(other) is None, state


def test_cleared_runs_never_wait_for_each_other(run: Any) -> None:
    first, second = run("a", 1, turn="success"), run("b", 2, turn="success")
    run(first, None)  # cleared from its first task on
    assert ahead_of(run(first, 3)) == second
    assert ahead_of(run(second, 2)) is None  # cleared, too, from wait_for_turn on
    assert ahead_of(first) == second


def test_a_run_waits_without_a_worker_and_looks_again(dag: DAG, run: Any) -> None:
    run("a", 1, turn="success")
    run("b", 2)
    with create_session() as session:
        context = {"dag_run": session.query(DagRun).filter_by(run_id="b").one()}
    sensor: Any = dag.get_task("wait_for_turn")
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context)
    path, arguments = deferred.value.trigger.serialize()
    with pytest.raises(TaskDeferred):
        sensor.resume_execution("__fail__", {"error": TIMED_OUT}, context)

    async def fired() -> None:
        trigger = import_string(path)(**arguments)
        waiting = asyncio.create_task(anext(aiter(trigger.run())))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        run("a", 1, turn="success", state="success")
        async with asyncio.timeout(30):
            await waiting

    asyncio.run(fired())
    sensor.resume_execution(deferred.value.method_name, {"event": None}, context)
