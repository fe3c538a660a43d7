"""``BERT_ETL_ENGINE=spark``: ``transform`` and ``merge`` as Spark jobs on Parquet in the bucket, by the same SQL.

What was ever said of each text lies in ``sightings/`` then, not in the warehouse; ``training_examples``, which all that
follows reads, stays there. ``sightings/current.json`` says which folder holds: it is written once a job has ended, so
that a job that dies leaves all as it was, and a run that is repeated begins where it had begun.
"""
# Imports of Spark's provider are inside functions: it is no part of the image unless somebody adds it.

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from airflow.exceptions import AirflowFailException

from include import lake, objects, sql
from include.orchestration.defaults import SPARK
from include.orchestration.warehouse import warehouse
from include.settings import settings

logger = logging.getLogger(__name__)

JOB = sql.FOLDER / "spark_job.py"
CURRENT = "current.json"
GIVEN = ("text_hash", "label", "source", "seen_at")
INTEGERS = ("trust", "copies", "label_version", "contradicted", "unchanged")


def operator(**kwargs: Any) -> Any:
    """A SparkSubmitOperator; its ``steps`` are the job's, and may be templates."""
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

    steps = kwargs.pop("steps")
    return SparkSubmitOperator(
        application=str(JOB), conn_id=SPARK, conf=dict(settings().spark_conf), name="weekly_etl",
        application_args=[steps], **kwargs,
    )  # fmt: skip


def transform_job(raw_uri: str, sightings_uri: str) -> str:
    """A template's word for the job that does what ``transform.sql`` does."""
    return _job(
        {"view": "raw", "parquet": [raw_uri]}, {"view": "sightings", "query": sql.transform("raw"), "to": sightings_uri}
    )


def settle(staging: str, curated: str, changes: str, week: str, sources: list[str], rule: str) -> list[Any]:
    """``curating.settle`` by Spark; returns what was said of the first contradicted texts. ``staging`` is the run's."""
    from include.orchestration import curating

    before = _before(staging)
    told = lake.staging(staging, "spark/")
    _write(f"{told}curated.parquet", curating.rows_of(curated, curating.CURATED), curating.CURATED)
    known = ("text_hash", "text", "label", "source", "first_seen", "last_seen", "label_version")
    _write(f"{told}known.parquet", curating.rows_of("training_examples", known), known)
    after = lake.sightings(f"{time.time_ns()}/")
    job = _settle_job(before, after, told, week, sources, rule)
    _submit(job)
    load(changes, f"{told}changes/")
    objects.write_json(lake.sightings(CURRENT), {"uri": after, "by": staging, "before": before})
    _forget({before, after})
    return sorted(_rows(f"{told}given/"), key=lambda row: str(row["seen_at"]))


def _settle_job(before: str, after: str, told: str, week: str, sources: list[str], rule: str) -> str:
    from include.orchestration import curating

    columns = ", ".join((*GIVEN, "text", "trust", "copies", "week"))
    names = ", ".join(map(_literal, sources))
    kept = f"SELECT {columns} FROM before WHERE NOT (week = {_literal(week)} AND source IN ({names}))"
    entered = f"SELECT *, {_literal(week)} AS week FROM ({sql.enter('curated', 'kept')})"
    shown = f"SELECT text_hash FROM changes WHERE contradicted = 1 ORDER BY text LIMIT {curating.SHOWN}"
    given = f"SELECT {', '.join(GIVEN)} FROM example_sightings WHERE text_hash IN ({shown})"
    return _job(
        {"view": "before", "parquet": [before]},
        {"view": "curated", "parquet": [f"{told}curated.parquet"]},
        {"view": "training_examples", "parquet": [f"{told}known.parquet"]},
        {"view": "kept", "query": kept},
        {
            "view": "example_sightings",
            "query": f"SELECT {columns} FROM kept UNION ALL SELECT {columns} FROM ({entered})",
            "to": after,
        },
        {"view": "changes", "query": sql.settle("curated", rule), "to": f"{told}changes/"},
        {"view": "given", "query": given, "to": f"{told}given/"},
    )


def _submit(job: str) -> None:
    from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

    hook = SparkSubmitHook(conf=dict(settings().spark_conf), conn_id=SPARK, name="weekly_etl", application_args=[job])
    try:
        hook.submit(str(JOB))
    except BaseException:
        hook.on_kill()
        raise


def _before(staging: str) -> str:
    """Where the sightings lie that this run began with; the first finds the warehouse's."""
    from include.orchestration import curating

    curating.create_tables()
    if objects.exists(uri := lake.sightings(CURRENT)):
        current = objects.read_json(uri)
        return str(current["before"] if current["by"] == staging else current["uri"])
    columns = (*curating.CURATED, "week")
    start = lake.sightings("warehouse/")
    _write(f"{start}example_sightings.parquet", curating.rows_of("example_sightings", columns), columns)
    return start


def _forget(kept: set[str]) -> None:
    """Deletes the sightings of earlier runs."""
    for uri in objects.find(lake.sightings()):
        if not uri.endswith(f"/{CURRENT}") and not uri.startswith(tuple(kept)):
            objects.delete(uri)


def check_warehouse_has_all() -> None:
    """Raises AirflowFailException if sightings lie in the bucket: the warehouse's table lacks some, or has none."""
    if objects.exists(uri := lake.sightings(CURRENT)):
        raise AirflowFailException(
            f"BERT_ETL_ENGINE was spark, so what was said of texts lies in {objects.read_json(uri)['uri']} and not in "
            "example_sightings: set it to spark again, or take the way back in docs/etl.md"
        )


def take_back() -> int:
    """Brings the sightings back into the warehouse, for ``BERT_ETL_ENGINE=warehouse``; returns how many."""
    from include.orchestration import curating

    curating.create_tables()
    columns = ", ".join((*curating.CURATED, "week"))
    uri = lake.sightings(CURRENT)
    count = load("etl_sightings_back", str(objects.read_json(uri)["uri"]))
    with warehouse().begin() as connection:
        connection.execute(sa.delete(curating.SIGHTINGS))
        move = f"INSERT INTO example_sightings ({columns}) SELECT {columns} FROM etl_sightings_back ORDER BY text_hash"
        connection.execute(sa.text(move))
        connection.execute(sa.text("DROP TABLE etl_sightings_back"))
    objects.delete(uri)
    return count


def load(name: str, uri: str) -> int:
    """Makes a table of a folder of Parquet files, whole numbers as such; returns how many rows."""
    import pyarrow as pa

    from include.orchestration import curating

    parts = _parts(uri)
    first = next(parts, None)
    if first is None:
        raise AirflowFailException(f"Spark has left no Parquet file in {uri}")
    columns = first.schema.names
    schema = pa.schema([(column, pa.int64() if column in INTEGERS else pa.string()) for column in columns])
    return curating.write_table(name, schema, chain([first], parts))


def _parts(uri: str) -> Iterator[Any]:
    """The rows of a folder, part by part; an empty part has the columns."""
    import pyarrow.parquet as pq

    for one in sorted(objects.find(uri)):
        if one.endswith(".parquet"):
            with objects.filesystem(one).open(one, "rb") as content:
                file = pq.ParquetFile(content)
                yield file.schema_arrow.empty_table()
                yield from file.iter_batches(100_000)


def _rows(uri: str) -> Iterator[dict[str, Any]]:
    for part in _parts(uri):
        yield from part.to_pylist()


def _write(uri: str, parts: Iterator[Any], columns: tuple[str, ...]) -> None:
    import pyarrow.parquet as pq

    from include.orchestration import curating

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        with pq.ParquetWriter(path, curating.schema_of(*columns), compression="zstd") as writer:
            for part in parts:
                writer.write_batch(part)
        objects.upload_file(path, uri)


def _job(*steps: dict[str, Any]) -> str:
    return json.dumps({"steps": steps})


def _literal(value: str) -> str:
    r"""A text as Spark's SQL writes it, with ``\`` and quotes escaped."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


if __name__ == "__main__":
    print(f"{take_back()} sightings are in the warehouse again; set BERT_ETL_ENGINE=warehouse")
