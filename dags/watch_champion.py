"""Watches a new champion that no retraining has deployed, also one that somebody has set in MLflow."""

from datetime import timedelta

from airflow.decorators import dag
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND
from include.orchestration.watch_sensor import ChampionSensor

MOST = timedelta(days=2)  # BERT_WATCH_MINUTES is a day at most


@dag(
    dag_id="watch_champion",
    description="Watches a new champion that no retraining has deployed: it holds, or the one before comes back.",
    **STARTED_BY_HAND | {"schedule": "*/10 * * * *", "dagrun_timeout": MOST, "tags": ["bert", "serving"]},
    params={
        "version": Param(
            None,
            type=["null", "string"],
            pattern=r"^[0-9]+$",
            title="Version",
            description="The champion to watch. Empty: looks whether somebody has set another one in MLflow.",
        ),
    },
    doc_md="""
Started by each promotion of `bert_model_training_pipeline` and `weekly_etl`, and by each approval; a run of
`model_retraining_dag` or `ml_pipeline_dag` watches what it has deployed itself. For `BERT_WATCH_MINUTES` the champion
is looked at: whether it loads, answers the golden rows as when it was judged, and is right as often as the one before
by people's labels and corrections. If it is not, the champion before comes back, once, whoever sees it first.

Every ten minutes a run without a version looks whether the alias `champion` is where the ledger says. If somebody has
set it in MLflow, it stays there, the ledger and an alert say so, and that version is watched in a run of its own.

Between two looks it waits in the triggerer, and holds no worker. docs/retraining.md has what is looked at.
""",
)
def watch_champion() -> None:
    ChampionSensor(task_id="watch", version="{{ params.version or '' }}")


watch_champion()
