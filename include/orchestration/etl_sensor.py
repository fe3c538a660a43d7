"""Waits for the week's ``weekly_etl``, whoever has started it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.models import DagModel, DagRun
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import State
from asgiref.sync import sync_to_async

from include.orchestration.waiting_sensor import WaitingSensor

ETL = "weekly_etl"


class EtlSensor(WaitingSensor):
    """Waits, without a worker, until no run of ``weekly_etl`` is due or unfinished, then looks whether anything is new.

    Runs by hand are waited for, too. If the ETL is paused or has no sources, nothing is waited for; if its run has
    failed, what came otherwise is still there to be trained on.
    """

    def execute(self, context: Any) -> dict[str, Any]:
        """What is new. Skips the run if nothing is."""
        from include.orchestration import pipeline_steps

        if ahead := etl_ahead():
            self.log.info("waiting for %s", ahead)
            self.wait(context, EtlTrigger(self.poke_interval), ahead)
        return pipeline_steps.check_new_data(context["dag_run"])


class EtlTrigger(BaseTrigger):
    """Fires when no run of the ETL is ahead any more."""

    def __init__(self, poke_interval: float) -> None:
        super().__init__()
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the triggerer finds this class, and its arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"poke_interval": self.poke_interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fires once, when no run of the weekly ETL is due or unfinished."""
        while await sync_to_async(etl_ahead)():
            await asyncio.sleep(self.poke_interval)
        yield TriggerEvent(None)


def etl_ahead(now: datetime | None = None) -> str:
    """The run of the ETL that has to be waited for, in words; empty if there is none."""
    now = now or datetime.now(UTC)
    with create_session() as session:
        dag = session.query(DagModel).filter(DagModel.dag_id == ETL, DagModel.is_active).first()
        if dag is None or dag.is_paused:
            return ""
        unfinished = DagRun.state.in_(State.unfinished_dr_states)
        run = session.query(DagRun.run_id).filter(DagRun.dag_id == ETL, unfinished).order_by(DagRun.id).first()
        if run:
            return f"the run {run[0]} of {ETL}"
        due = dag.next_dagrun_create_after
        return f"the run of {ETL} that is due since {due:%F %R}" if due and due <= now else ""
