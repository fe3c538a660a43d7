"""Lets Airflow read the DAGs that have a schedule of ours from its database."""

from airflow.plugins_manager import AirflowPlugin

from include.orchestration.timetable import OwnRunIds


class OwnRunIdsPlugin(AirflowPlugin):  # type: ignore[misc]  # airflow is untyped here
    """Registers the timetable ``OwnRunIds``, by which two DAGs' scheduled runs have ids of their own."""

    name = "own_run_ids"
    timetables = [OwnRunIds]
