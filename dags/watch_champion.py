"""Watches a new champion that no retraining has deployed: it holds, or the one before comes back."""

from datetime import timedelta

from airflow.decorators import dag
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND
from include.orchestration.watch_sensor import ChampionSensor

MOST = timedelta(days=2)  # BERT_WATCH_MINUTES is a day at most


@dag(
    dag_id="watch_champion",
    description="Watches a new champion that no retraining has deployed: it holds, or the one before comes back.",
    **STARTED_BY_HAND | {"dagrun_timeout": MOST, "tags": ["bert", "serving"]},
    params={
        "version": Param(type="string", pattern=r"^[0-9]+$", title="Version", description="The champion to watch"),
    },
    doc_md="""
Started by each promotion of `bert_model_training_pipeline` and `weekly_etl`, and by each approval; a run of
`model_retraining_dag` or `ml_pipeline_dag` watches what it has deployed itself. For `BERT_WATCH_MINUTES` the champion
is looked at: whether it loads, answers the golden rows as when it was judged, and is right as often as the one before
by people's labels and corrections. If it is not, the champion before comes back, once, whoever sees it first.

Between two looks it waits in the triggerer, and holds no worker. docs/retraining.md has what is looked at.
""",
)
def watch_champion() -> None:
    ChampionSensor(task_id="watch", version="{{ params.version }}")


watch_champion()
