"""Watches a new champion that has only a share of the requests yet: it moves on, or back."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND
from include.settings import settings

MOST = timedelta(days=2)  # BERT_CANARY_MINUTES is a day at most


@dag(
    dag_id="watch_canary",
    description="Watches a new champion that has only a share of the requests yet: it moves on, or back.",
    **STARTED_BY_HAND | {"dagrun_timeout": MOST, "tags": ["bert", "serving"]},
    params={
        "version": Param(type="string", pattern=r"^[0-9]+$", title="Version", description="The champion to watch"),
    },
    doc_md="""
Started by each promotion while `BERT_CANARY` is set. The model servers send that share of the requests to the new
champion and compare it with the version before. One that sees it fail stops asking it and says so in the version's tag
`canary_failed`, which the other servers follow; this run then asks for the rollback, naming the version to be replaced.
A champion that holds for `BERT_CANARY_MINUTES` answers all requests, and the ledger says what was seen of it.
""",
)
def watch_canary() -> None:
    @task(execution_timeout=MOST)
    def watch(dag_run: Any = None, params: Any = None) -> str:
        from include.markdown import plain
        from include.orchestration import canaries, notes, settling
        from include.registry import promotion, smoke

        try:
            told = canaries.watch(
                settings().model_name, params["version"], settling.warehouse(), dag_run_id=dag_run.run_id
            )
        except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
            raise AirflowFailException(f"version {params['version']} failed, and is champion still: {error}") from error
        notes.set_note(dag_run.dag_id, dag_run.run_id, plain(told))
        return told

    watch()


watch_canary()
