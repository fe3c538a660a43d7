"""Trains a version again and compares: `make reproduce` for where there is no shell."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND
from include.orchestration.training_task import provide_training_pool, training_task
from include.settings import settings


@dag(
    dag_id="reproduce_version",
    description="Trains a registered version again and says whether it is the same.",
    **(STARTED_BY_HAND | {"dagrun_timeout": timedelta(days=2)}),
    params={
        "version": Param(
            type="string",
            pattern=r"^[0-9]+$",
            title="Version",
            description="Of the registered model; it is trained again as its job says, and nothing else changes.",
        ),
    },
    doc_md="""
Started by hand only. Trains a registered version again from what its job names, in a job of its own, and compares: the
same weights where machine and versions are the same, else metrics within a tolerance. The note says which it was, and
the first difference: a setting, a library, a tensor. The run fails if the version was not made again. No alias moves.
""",
)
def reproduce_version() -> None:
    @task
    def rebuild(dag_run: Any = None, params: Any = None) -> str:
        from include.orchestration import reproduction

        provide_training_pool()
        try:
            return reproduction.rebuild(settings().model_name, params["version"], dag_run.run_id)
        except reproduction.NotReproducible as error:
            raise AirflowFailException(f"cannot be made again: {error}") from error

    @task
    def compare(result_uri: str, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.markdown import plain
        from include.orchestration import notes, reproduction

        comparison = reproduction.judge(settings().model_name, params["version"], result_uri)
        if comparison.verdict == "different":
            raise AirflowFailException(f"version {params['version']} was not made again: {comparison.explanation}")
        told = f"**{comparison.verdict.replace('_', ' ')}** — {plain(comparison.explanation)}"
        notes.set_note(dag_run.dag_id, dag_run.run_id, told)
        found: dict[str, Any] = comparison.model_dump(mode="json")
        return found

    job_uri = "{{ ti.xcom_pull(task_ids='rebuild') }}"
    train_again = training_task(task_id="train_again", job_uri=job_uri)
    rebuild() >> train_again
    compare(train_again.output)


reproduce_version()
