"""Waits for uploads, claims each exactly once, and tells the training pipeline."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowSkipException

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.orchestration.events import INCOMING
from include.orchestration.upload_sensor import upload_sensor


@dag(
    dag_id="s3_upload_listener",
    description="Waits for uploads, claims each exactly once, and tells the training pipeline.",
    schedule="@continuous",
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=2),
    default_args=TASK_DEFAULTS | {"retry_delay": timedelta(seconds=5), "max_retry_delay": timedelta(minutes=1)},
    tags=["bert", "uploads"],
    doc_md="""
Drop a `.csv`, `.jsonl` or `.parquet` file below `incoming/` in the bucket; sub-folders are fine. A file belongs to the
listener that creates its entry in `claims/index/` first, moves to `claims/<batch_id>/`, and starts
`bert_model_training_pipeline` through the Dataset `incoming`. A file that is still being written, or is overwritten
meanwhile, is left for the next round.

As long as a batch has not reached its end, the listener looks after it every minute: it tells of it again if no run
came of it, or its run failed. What somebody should look at stands in the run's note. `docs/uploads.md` shows the table.
""",
)
def s3_upload_listener() -> None:
    @task(outlets=[INCOMING])
    def claim_uploads(dag_run: Any = None, ts_nodash: Any = None, outlet_events: Any = None) -> list[str]:
        from include.orchestration.listening import listen

        batches = listen(dag_run.dag_id, dag_run.run_id, ts_nodash)
        if not batches:
            raise AirflowSkipException("nothing that the pipeline has to be told of now")
        outlet_events[INCOMING].extra = {"batches": batches}
        return batches

    upload_sensor(task_id="wait_for_upload") >> claim_uploads()


s3_upload_listener()
