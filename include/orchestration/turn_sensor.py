"""Runs wait for their data side by side; past that, one at a time goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from airflow.models import DagRun, TaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from asgiref.sync import sync_to_async
from sqlalchemy.orm import aliased

from include.orchestration.waiting_sensor import WaitingSensor


class TurnSensor(WaitingSensor):
    """Lets one run of its DAG past at a time, in the order in which they had their data.

    A run goes on if no other running run has gone on, and none had its data earlier (the end of the task ``after``,
    then the run's id). All of it stands in Airflow's database: there is no lock that a killed task could leave behind,
    and a run that ends in whatever way, or is deleted, is out of the others' way. A run whose later tasks are cleared
    has had its turn. It waits for as long as it takes; the run's own time-out ends it.
    """

    def __init__(self, *, after: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.after = after

    def execute(self, context: Any) -> None:
        """Ends if it is this run's turn, else waits for it without a worker."""
        run = context["dag_run"]
        ahead = run_ahead(run.dag_id, run.run_id, self.task_id, self.after)
        if ahead is None:
            return
        self.log.info("waiting for the run %s", ahead)
        self.defer(
            trigger=TurnTrigger(
                dag_id=run.dag_id,
                run_id=run.run_id,
                task_id=self.task_id,
                after=self.after,
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),  # then it looks again, and goes on waiting
        )


class TurnTrigger(BaseTrigger):
    """Fires when no run is ahead any more."""

    def __init__(self, dag_id: str, run_id: str, task_id: str, after: str, poke_interval: float) -> None:
        super().__init__()
        self.dag_id, self.run_id, self.task_id, self.after = dag_id, run_id, task_id, after
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the triggerer finds this class, and its arguments."""
        names = ("dag_id", "run_id", "task_id", "after", "poke_interval")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fires once, when no run is ahead any more."""
        while await sync_to_async(run_ahead)(self.dag_id, self.run_id, self.task_id, self.after):
            await asyncio.sleep(self.poke_interval)
        yield TriggerEvent(None)


def run_ahead(dag_id: str, run_id: str, task_id: str, after: str) -> str | None:
    """The run that this one has to wait for; None if it is its turn."""
    data, turn = aliased(TaskInstance), aliased(TaskInstance)
    with create_session() as session:
        found = (
            session.query(DagRun.run_id, data.end_date, turn.state)
            .join(data, (data.dag_id == DagRun.dag_id) & (data.run_id == DagRun.run_id) & (data.task_id == after))
            .outerjoin(turn, (turn.dag_id == data.dag_id) & (turn.run_id == data.run_id) & (turn.task_id == task_id))
            .filter(DagRun.dag_id == dag_id, DagRun.state == DagRunState.RUNNING)
            .filter(data.state == TaskInstanceState.SUCCESS)
            .all()
        )
    others = [one for one in found if one[0] != run_id]
    gone_on = [run for run, _, state in others if state == TaskInstanceState.SUCCESS]
    if gone_on:
        return str(min(gone_on))
    mine = next((ended for run, ended, _ in found if run == run_id), None)
    if mine is None:  # somebody sets task states by hand
        return None
    earlier = [(ended, run) for run, ended, _ in others if ended and (ended, run) < (mine, run_id)]
    return str(min(earlier)[1]) if earlier else None
