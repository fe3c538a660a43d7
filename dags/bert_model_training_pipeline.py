"""Trains a challenger on what was uploaded, compares it with the champion, and promotes or rejects it."""

# No `from __future__ import annotations` here: it would switch off @aql.dataframe's conversion of tables to frames.
from datetime import timedelta
from typing import Any

import pandas as pd  # noqa: TID253 - the Astro SDK imports it anyway, and reads the annotation below
from airflow.decorators import dag, task
from astro import sql as aql
from astro.constants import FileType
from astro.files import File
from astro.table import Table

from include.orchestration.defaults import AWS, OF_EVERY_DAG, TASK_DEFAULTS, WAREHOUSE
from include.orchestration.events import INCOMING
from include.orchestration.handover import LoadRows, restore, table_name
from include.orchestration.key_sensor import TrainingDataSensor
from include.orchestration.params import data_bucket, data_pattern, training_params
from include.orchestration.production import road_to_production
from include.orchestration.turn_sensor import TurnSensor
from include.settings import settings


@dag(
    dag_id="bert_model_training_pipeline",
    description="From uploaded rows to the champion, or an answer why not.",
    schedule=[INCOMING],
    **OF_EVERY_DAG,
    max_active_runs=16,  # they wait for their data side by side; wait_for_turn lets one at a time go on
    dagrun_timeout=timedelta(days=2),
    default_args=TASK_DEFAULTS,
    params=training_params(),
    user_defined_macros={"data_bucket": data_bucket, "data_pattern": data_pattern, "accepted_table": table_name},
    tags=["bert", "training"],
    doc_md="""
Starts by itself when `s3_upload_listener` has claimed uploads, by the form (*Trigger DAG w/ config*), or by
`POST /api/v1/dags/bert_model_training_pipeline/dagRuns` with `{"conf": {"epochs": 3}}`.

Rows that break the data contract go to `quarantine/` with a reason. The challenger is trained on the champion's rows
and the new ones, and both are scored on the same golden rows; only if all gates pass does the alias `champion` move.
The run's note says how it ended and links the report.
""",
)
def bert_model_training_pipeline() -> None:
    wait_for_data = TrainingDataSensor(
        task_id="wait_for_data",
        bucket_name="{{ data_bucket(params.dataset_uri) }}",
        bucket_key="{{ data_pattern(params.dataset_uri) }}",
        wildcard_match=True,
        deferrable=True,
        aws_conn_id=AWS,
        poke_interval=settings().upload_poll_seconds,
        timeout=timedelta(minutes=settings().data_timeout_minutes).total_seconds(),
    )
    wait_for_turn = TurnSensor(
        task_id="wait_for_turn", after="wait_for_data", poke_interval=2, timeout=timedelta(days=1).total_seconds()
    )

    @task
    def validate_data(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.orchestration import intake_steps

        return intake_steps.validate(dag_run, params)

    load_rows = LoadRows(
        task_id="load_rows",
        input_file=File(
            path="{{ ti.xcom_pull(task_ids='validate_data')['accepted_uri'] }}", conn_id=AWS, filetype=FileType.PARQUET
        ),
        output_table=Table(name="{{ accepted_table(run_id) }}", conn_id=WAREHOUSE),
        if_exists="replace",
    ).output

    @aql.dataframe(task_id="preprocess_data", pre_execute=restore)
    def preprocess_data(rows: pd.DataFrame, accepted_hash: str, run_id: str) -> dict[str, Any]:
        from include.orchestration import intake_steps

        return intake_steps.preprocess(rows, run_id, accepted_hash)

    accepted_hash = "{{ ti.xcom_pull(task_ids='validate_data')['accepted_hash'] }}"
    snapshot = preprocess_data(load_rows, accepted_hash=accepted_hash, run_id="{{ run_id }}")
    road = road_to_production(dataset_uri="{{ ti.xcom_pull(task_ids='preprocess_data')['dataset_uri'] }}")
    wait_for_data >> wait_for_turn >> validate_data() >> load_rows
    snapshot >> road.group


bert_model_training_pipeline()
