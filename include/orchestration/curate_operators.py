"""The Astro SDK's operators of ``weekly_etl``, with what the SDK has no word for."""

import hashlib
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowSkipException
from airflow.operators.bash import BashOperator
from astro.constants import FileType
from astro.files import File
from astro.sql import transform_file
from astro.sql.operators.export_to_file import ExportToFileOperator
from astro.sql.operators.merge import MergeOperator
from astro.table import Metadata, Table

from include import sql
from include.ingestion import sources
from include.orchestration.defaults import AWS, SCHEMA, TASK_DEFAULTS, WAREHOUSE
from include.orchestration.handover import LoadRows
from include.settings import settings

ETL_DOC = """
Fetches what is new at the sources that `BERT_SOURCES` lists (FTP, SFTP, HTTP, S3, SQL, REST, MongoDB, folders) into
`raw/<source>/<week>/`, judges and cleans it, and merges it into the warehouse's table `training_examples`. What is new
or has another label there becomes a batch that this run trains on; the model is judged like any other. The run's
report lies in `reports/weekly_etl/`. A source with a schedule of its own has a DAG of its own, which hands its batch to
`bert_model_training_pipeline`. docs/etl.md has the rest.
"""


def task_defaults() -> dict[str, Any]:
    """What all tasks of these DAGs have in common, as it is set now."""
    return TASK_DEFAULTS | {
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": False,
    }


def etl_table(kind: str, dag_id: str, run_id: str) -> str:
    """``{{ macros.etl_table(…) }}`` of a template: the name of a run's table."""
    from include.orchestration import curating

    return curating.table_name(kind, dag_id, run_id)


def staged(dag_run: Any, name: str) -> str:
    """A template's word for where a run stages an object."""
    from include import lake
    from include.orchestration import etl_steps

    return lake.staging(etl_steps.staging_of(dag_run), name)


def spark_transform(dag_run: Any, name: str) -> str:
    """A template's word for Spark's job between the rows that a run stages under a name and their sightings."""
    from include.orchestration import etl_spark

    return etl_spark.transform_job(staged(dag_run, name), staged(dag_run, "spark/sightings/"))


MACROS = {"etl_table": etl_table, "staged": staged, "spark_transform": spark_transform}
"""What templates of these DAGs may say."""


def table(name: str) -> Table:
    """A table of the warehouse; without its schema the Astro SDK would look in one of its own."""
    return Table(name=name, conn_id=WAREHOUSE, metadata=Metadata(schema=SCHEMA))


def own(kind: str) -> Table:
    """A run's own table of a kind."""
    return table(f"{{{{ etl_table('{kind}', dag.dag_id, run_id) }}}}")


def parquet(name: str) -> File:
    """What a run stages under a name."""
    return File(path=f"{{{{ staged(dag_run, '{name}') }}}}", conn_id=AWS, filetype=FileType.PARQUET)


def sightings(raw_file: str) -> tuple[Any, Any]:
    """``load_raw`` and ``transform``: the first, and the table of sightings. Spark transforms before it loads."""
    if settings().etl_engine == "spark":
        from include.orchestration import etl_spark

        transform = etl_spark.operator(task_id="transform", steps=f"{{{{ spark_transform(dag_run, '{raw_file}') }}}}")
        load = LoadSightings(
            task_id="load_raw", input_file=parquet("spark/sightings/"), output_table=own("sightings"),
            if_exists="replace",
        )  # fmt: skip
        transform >> load
        return transform, load.output
    raw = LoadRows(
        task_id="load_raw", input_file=parquet(raw_file), output_table=own("raw"), if_exists="replace", columns=sql.RAW
    )
    table = transform_file(
        "transform.sql", task_id="transform", conn_id=WAREHOUSE, parameters={"raw": raw.output},
        op_kwargs={"output_table": own("sightings")},
    )  # fmt: skip
    return raw, table


class LoadSightings(LoadRows):
    """``load_raw`` of what Spark has made of the rows that were read."""

    def load_data_to_table(self, input_file: Any, context: Any) -> Any:
        """Fills the table with the folder's rows, replacing what was there; returns the table."""
        from include.orchestration import etl_spark

        etl_spark.load(self.output_table.name, input_file.path)
        return self.output_table


def script_steps(scripts: Sequence[str]) -> tuple[str, list[BashOperator]]:
    """A task for each script, on the rows of the one before; and the name under which the last one stages them."""
    steps = []
    for number, script in enumerate(scripts, 1):
        before, name = staged_name(number - 1), staged_name(number)
        files = " ".join(f"\"{{{{ staged(dag_run, '{one}') }}}}\"" for one in (before, name))
        path = sources.PROJECT / script
        step = BashOperator(
            task_id=f"run_{Path(script).stem}", bash_command=f'"$PYTHON" "$SCRIPT" {files}', append_env=True,
            env={"PYTHON": sys.executable, "SCRIPT": str(path), "PYTHONPATH": str(sources.PROJECT)},
        )  # fmt: skip
        steps.append(step)
    return staged_name(len(scripts)), steps


def staged_name(scripts: int) -> str:
    """The file that the rows are in after so many scripts."""
    return f"raw-{scripts}.parquet" if scripts else "raw.parquet"


class MergeExamples(MergeOperator):
    """``aql.merge`` of what was settled from a week's sightings; entering those comes first.

    The SDK's merge is for texts that are known; new ones, of which there may be millions, are inserted after it.
    """

    def __init__(self, *, names: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = names

    def execute(self, context: Any) -> Any:
        """Settles and merges; returns the merged table."""
        from include.orchestration import curating, etl_spark, etl_steps

        run = context["dag_run"]
        curated, changes = (curating.table_name(kind, run.dag_id, run.run_id) for kind in ("curated", "changes"))
        curating.need_table(curated)
        given, rule = None, sources.week().conflicts
        what = (curated, changes, etl_steps.week_of(run), self.names, rule)
        if settings().etl_engine == "spark":
            given = etl_spark.settle(etl_steps.staging_of(run), *what)
        else:
            etl_spark.check_warehouse_has_all()
            curating.settle(*what)
        curating.prepare_merge(changes, self.source_table.name)
        merged = super().execute(context)
        curating.insert_new(changes)
        etl_steps.keep(run, merge=curating.changes_of(changes, given), rule=rule)
        return merged


class ExportExamples(ExportToFileOperator):
    """``aql.export_file`` of rows that are new or changed since the last export, in parts; then they are a batch.

    The batch is this run's own if ``trains``; else the listener tells the training pipeline of it.
    """

    def __init__(self, *, trains: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trains = trains

    def execute(self, context: Any) -> Any:
        """Exports and seals; returns the batch's id and number of rows. Skips what follows if there are none."""
        from include import lake, objects
        from include.orchestration import batches, curating, etl_steps, fetching
        from include.uploads import claims, sealing

        run, table = context["dag_run"], self.input_data.name
        before = lake.staging(etl_steps.staging_of(run), "batch.json")
        count = curating.prepare_export(table)
        if not count and not objects.exists(before):
            etl_steps.keep(run, export={"rows": 0})
            raise AirflowSkipException("nothing is new or changed since the last export: nothing to train on")
        if count:
            digest = _export(table, self.output_file.path)
            until = fetching.until_of(run)
            batch_id = claims.batch_id_of(f"{until:%Y%m%dT%H%M%S}", f"{run.dag_id} {run.run_id} {digest}")
            key = f"{run.dag_id}/{etl_steps.week_of(run)}.parquet"
            owner = run.run_id if self.trains else ""
            sealing.seal(batch_id, key, self.output_file.path, origin=run.dag_id, run_id=owner)
            batches.record([batch_id])
            objects.write_json(before, {"batch_id": batch_id, "rows": count})
            curating.enter_export(table)
        found = objects.read_json(before)
        etl_steps.keep(run, export=found)
        return found


def _export(table: str, uri: str) -> str:
    """Writes a table as Parquet, part by part; returns a hash of its rows."""
    import tempfile
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from include import objects
    from include.orchestration import curating

    names = ("text_hash", "text", "label", "source")
    schema = pa.schema([(name, pa.string()) for name in names[1:]])
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for some in curating.rows_of(table, names, names[:1]):
                for line in pc.binary_join_element_wise(some["text_hash"], some["label"], " ").to_pylist():
                    digest.update(f"{line}\n".encode())
                writer.write_batch(some.select(schema.names))
        objects.upload_file(path, uri)
    return digest.hexdigest()
