"""Corrections of what the model server has answered become training data, once a day."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.models.param import Param

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.settings import settings


@dag(
    dag_id="collect_feedback",
    description="Corrections of what the model server has answered become training data.",
    schedule="@daily",
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=TASK_DEFAULTS,
    params={
        "today": Param(
            False,
            type="boolean",
            title="Today's too",
            description="Also take what came today, without waiting for the day's end.",
        ),
    },
    tags=["bert", "feedback"],
    doc_md="""
What `POST /feedback` has kept up to yesterday is joined with the prediction log and dropped in `incoming/feedback/` as
one file, from where it trains the next model as any upload does. Each correction goes once, however often this is
repeated. Such rows never judge: people correct what is wrong, so they are no fair sample. The run's note says how many
went, and which could not and why.
""",
)
def collect_feedback() -> None:
    @task
    def send_back(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.orchestration import collecting

        return collecting.collect(dag_run, settings().model_name, today=params["today"])

    send_back()


collect_feedback()
