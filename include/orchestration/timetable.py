"""Schedules whose runs have ids that no other DAG's run has.

A run's id names its files in the bucket, and Airflow gives runs of two DAGs that are due at the same time the same one.
"""

from typing import Any

from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils.types import DagRunType


class OwnRunIds(CronDataIntervalTimetable):
    """A cron expression or a preset; ids of scheduled runs end in the DAG's.

    Airflow finds it when it reads a DAG from its database, as the plugin ``own_run_ids`` names it.
    """

    def __init__(self, cron: str, dag_id: str) -> None:
        super().__init__(cron, timezone="UTC")
        self.dag_id, self.cron = dag_id, cron

    @property
    def summary(self) -> str:
        """The schedule as Airflow's pages show it."""
        return self.cron

    def serialize(self) -> dict[str, Any]:
        """What Airflow keeps of it, and gives back to ``deserialize``."""
        return {"cron": self.cron, "dag_id": self.dag_id}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "OwnRunIds":
        """The timetable that Airflow has kept by ``serialize``."""
        return cls(data["cron"], data["dag_id"])

    def generate_run_id(self, *, run_type: DagRunType, **facts: Any) -> str:
        """Airflow's own, and of a scheduled run also the DAG's id."""
        usual = str(super().generate_run_id(run_type=run_type, **facts))
        return f"{usual}__{self.dag_id}" if run_type == DagRunType.SCHEDULED else usual


def own_run_ids(cron: str, dag_id: str) -> OwnRunIds | None:
    """The schedule of a DAG that trains; None without one."""
    return OwnRunIds(cron, dag_id) if cron else None
