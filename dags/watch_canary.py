"""Watches a new champion that has only a share of the requests yet: it moves on, or back."""

from datetime import timedelta

from airflow.decorators import dag
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND
from include.orchestration.watch_sensor import CanarySensor

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

Between two looks it waits in the triggerer, and holds no worker.
""",
)
def watch_canary() -> None:
    CanarySensor(task_id="watch", version="{{ params.version }}")


watch_canary()
