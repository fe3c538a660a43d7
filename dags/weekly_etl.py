"""From any source to a curated table, a model and a report, every week."""

from datetime import timedelta  # no `from __future__ import annotations`: @aql.dataframe reads them
from typing import Any

from airflow.decorators import task
from airflow.models import DAG
from airflow.models.baseoperator import chain
from astro import sql as aql
from astro.table import Table

from include import sql
from include.ingestion.sources import WEEKLY, dag_id_of, interval, week
from include.orchestration import curate_operators as curate
from include.orchestration.defaults import MERGE_POOL, OF_EVERY_DAG
from include.orchestration.download_operator import DownloadData, wait_for_files
from include.orchestration.events import TRAINING_EXAMPLES
from include.orchestration.params import etl_params
from include.orchestration.production import road_to_production

OF_ALL: dict[str, Any] = OF_EVERY_DAG | {
    "description": __doc__,
    "max_active_runs": 1,
    "dagrun_timeout": timedelta(days=2),
    "default_args": curate.task_defaults(),
    "template_searchpath": [str(sql.FOLDER)],
    "user_defined_macros": curate.MACROS,
    "tags": ["bert", "etl", "training"],
    "doc_md": curate.ETL_DOC,
}


@task
def list_sources(names: list[str]) -> list[str]:
    from include.orchestration import etl_steps

    return etl_steps.list_sources(names)


@task
def read_files(names: list[str], dag_run: Any = None) -> dict[str, Any]:
    from include.orchestration import etl_steps

    return etl_steps.read_landed(dag_run, names)


@aql.dataframe(task_id="preprocess_data")
def preprocess_data(rows: Table) -> dict[str, Any]:
    from include.orchestration import etl_steps

    return etl_steps.preprocess(rows.name)


@task
def write_targets(dag_run: Any = None) -> list[dict[str, Any]]:
    from include.orchestration import etl_steps

    return etl_steps.write_targets(dag_run)


@task
def build_dataset(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
    from include.orchestration import etl_steps

    return etl_steps.build_dataset(dag_run, params)


@task(trigger_rule="none_failed")
def generate_report(names: list[str], dag_run: Any = None) -> dict[str, Any]:
    from include.orchestration import etl_report, etl_steps

    return etl_report.generate(dag_run, names) if etl_steps.list_sources(names) else {}


def weekly_etl(schedule: str, names: list[str]) -> None:
    """The DAG of all sources with one schedule. The weekly one trains; others hand a batch to the pipeline."""
    trains = schedule == WEEKLY
    due = interval(schedule) if names else None  # no sources, nothing to be done
    with DAG(dag_id_of(schedule), schedule=due, params=etl_params(), **OF_ALL):
        download = DownloadData.partial(
            task_id="download_data", max_active_tis_per_dagrun=4, map_index_template="{{ task.source }}"
        )
        landed = download.expand(source=list_sources(names))
        raw_file, steps = curate.script_steps(week().scripts)
        first, sightings = curate.sightings(raw_file)
        merge = curate.MergeExamples(
            task_id="merge", names=names, source_table=curate.own("update"), columns=list(sql.COLUMNS),
            target_table=curate.table("training_examples"), target_conflict_columns=["text_hash"],
            if_conflicts="update", pool=MERGE_POOL,
        )  # fmt: skip
        export = curate.ExportExamples(
            task_id="export_dataset", trains=trains, input_data=curate.own("export"), if_exists="replace",
            output_file=curate.parquet("export.parquet"), outlets=[TRAINING_EXAMPLES],
        )  # fmt: skip
        report = generate_report(names)
        chain(wait_for_files(names), landed, read_files(names), *steps, first)
        preprocess_data(sightings) >> merge >> export >> report
        if week().targets:
            merge >> write_targets() >> report
        if trains:
            road = road_to_production(dataset_uri="{{ ti.xcom_pull(task_ids='build_dataset')['dataset_uri'] }}")
            export >> build_dataset() >> road.group
            road.decide >> report


for _schedule, _names in week().schedules().items():
    weekly_etl(_schedule, _names)
