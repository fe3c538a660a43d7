"""From any source to a curated table, a model and a report, every week."""

from datetime import timedelta  # and no `from __future__ import annotations`: @aql.dataframe reads them
from typing import Any

from airflow.decorators import dag, task
from astro import sql as aql
from astro.constants import FileType
from astro.files import File
from astro.table import Metadata, Table

from include import sql
from include.ingestion.sources import WEEKLY, week
from include.orchestration import curate_operators as curate
from include.orchestration.defaults import AWS, MERGE_POOL, SCHEMA, START, TASK_DEFAULTS, WAREHOUSE
from include.orchestration.download_operator import DownloadData
from include.orchestration.events import TRAINING_EXAMPLES
from include.orchestration.handover import LoadRows
from include.orchestration.params import etl_params
from include.orchestration.production import road_to_production
from include.settings import settings

DEFAULTS = TASK_DEFAULTS | {
    "retries": 1,
    "retry_delay": timedelta(minutes=5),
    "retry_exponential_backoff": False,
    "email": list(settings().alert_emails),
    "email_on_failure": bool(settings().alert_emails),
    "email_on_retry": False,
}


def table(name: str) -> Table:
    """A table of the warehouse; without its schema the Astro SDK would look in one of its own."""
    return Table(name=name, conn_id=WAREHOUSE, metadata=Metadata(schema=SCHEMA))


def own(kind: str) -> Table:
    return table(f"{{{{ etl_table('{kind}', dag.dag_id, run_id) }}}}")


def weekly_etl(schedule: str, names: list[str]) -> None:
    """The DAG of all sources with one schedule. The weekly one trains; others hand a batch to the pipeline."""

    @dag(
        dag_id=curate.dag_id_of(schedule),
        description=__doc__,
        schedule=("@weekly" if schedule == WEEKLY else schedule) if names else None,  # no sources, nothing to be done
        start_date=START,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        dagrun_timeout=timedelta(days=2),
        default_args=DEFAULTS,
        params=etl_params(),
        template_searchpath=[str(sql.FOLDER)],
        user_defined_macros={"etl_table": curate.etl_table, "staged": curate.staged},
        tags=["bert", "etl", "training"],
        doc_md=curate.ETL_DOC,
    )
    def etl() -> None:
        @task
        def list_sources() -> list[str]:
            from include.orchestration import etl_steps

            return etl_steps.list_sources(names)

        @task
        def read_files(dag_run: Any = None) -> dict[str, Any]:
            from include.orchestration import etl_steps

            return etl_steps.read_landed(dag_run, names)

        @aql.dataframe(task_id="preprocess_data")
        def preprocess_data(rows: Table) -> dict[str, Any]:
            from include.orchestration import etl_steps

            return etl_steps.preprocess(rows.name)

        @task
        def build_dataset(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
            from include.orchestration import etl_steps

            return etl_steps.build_dataset(dag_run, params)

        @task(trigger_rule="none_failed")
        def generate_report(dag_run: Any = None) -> dict[str, Any]:
            from include.orchestration import etl_report, etl_steps

            return etl_report.generate(dag_run) if etl_steps.list_sources(names) else {}

        download = DownloadData.partial(task_id="download_data", max_active_tis_per_dagrun=4)
        raw_file = File(path="{{ staged(dag_run, 'raw.parquet') }}", conn_id=AWS, filetype=FileType.PARQUET)
        raw = LoadRows(task_id="load_raw", input_file=raw_file, output_table=own("raw"), if_exists="replace").output
        sightings = aql.transform_file(
            "transform.sql", task_id="transform", conn_id=WAREHOUSE, parameters={"raw": raw},
            op_kwargs={"output_table": own("sightings")},
        )  # fmt: skip
        merge = curate.MergeExamples(
            task_id="merge", names=names, source_table=own("changes"), if_conflicts="update", columns=curate.COLUMNS,
            target_table=table("training_examples"), target_conflict_columns=["text_hash"], pool=MERGE_POOL,
        )  # fmt: skip
        exported = File(path="{{ staged(dag_run, 'export.parquet') }}", conn_id=AWS, filetype=FileType.PARQUET)
        export = curate.ExportExamples(
            task_id="export_dataset", trains=schedule == WEEKLY, input_data=own("export"), output_file=exported,
            if_exists="replace", outlets=[TRAINING_EXAMPLES],
        )  # fmt: skip
        report = generate_report()
        download.expand(source=list_sources()) >> read_files() >> raw
        preprocess_data(sightings) >> merge >> export >> report
        if schedule == WEEKLY:
            road = road_to_production(dataset_uri="{{ ti.xcom_pull(task_ids='build_dataset')['dataset_uri'] }}")
            export >> build_dataset() >> road.group
            road.decide >> report

    etl()


for _schedule, _names in week().schedules().items():
    weekly_etl(_schedule, _names)
