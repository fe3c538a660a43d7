"""Deletes what is old and not referred to any more from the bucket and the warehouse."""

from datetime import timedelta

from airflow.decorators import dag, task

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS


@dag(
    dag_id="lake_cleanup",
    description="Deletes what is old and not referred to any more from the bucket and the warehouse.",
    schedule="@daily",
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=TASK_DEFAULTS,
    tags=["bert", "admin"],
    doc_md="""
Deletes old claims, what ended runs handed from task to task, training jobs and datasets that no model version, open
batch or running run refers to, and files that were looked at in the console. The ages are settings: `BERT_CLAIMS_DAYS`,
`BERT_STAGING_DAYS`, `BERT_JOBS_DAYS`, `BERT_DATASETS_DAYS`, `BERT_DRAFTS_DAYS`. The XCom says how many objects of each
kind went.
""",
)
def lake_cleanup() -> None:
    @task
    def sweep() -> dict[str, int]:
        from include.orchestration import sweeping

        return sweeping.sweep()

    sweep()


lake_cleanup()
