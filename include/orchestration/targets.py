"""Curated rows also elsewhere: in a bucket as one file, or in a MongoDB collection."""
# Only imported inside tasks.

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import objects, sql
from include.ingestion.sources import MongoTarget, S3Target, Target
from include.orchestration import curating

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

DOCUMENTS_AT_ONCE = 1_000


def write(targets: tuple[Target, ...], changes: str) -> list[dict[str, Any]]:
    """Writes to each target; returns where to, and how many rows. ``changes`` is the run's table of those."""
    written = []
    for target in targets:
        where, rows = _to_bucket(target) if isinstance(target, S3Target) else _to_mongo(target, changes)
        logger.info("%d rows were written to %s", rows, where)
        written.append({"where": where, "rows": rows})
    return written


def _parts(table: str) -> Iterator["pa.RecordBatch"]:
    return curating.rows_of(table, sql.COLUMNS, ("text_hash",))


def _to_bucket(target: S3Target) -> tuple[str, int]:
    """All of the table: whoever reads it finds that of this run or of the one before, and nothing in between."""
    import pyarrow.parquet as pq

    uri, rows = f"{target.uri.rstrip('/')}/training_examples.{target.format}", 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        if target.format == "parquet":
            with pq.ParquetWriter(path, curating.schema_of(*sql.COLUMNS), compression="zstd") as writer:
                for part in _parts("training_examples"):
                    writer.write_batch(part)
                    rows += len(part)
        else:
            with path.open("w", encoding="utf-8") as file:
                for part in _parts("training_examples"):
                    file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in part.to_pylist())
                    rows += len(part)
        objects.upload_file(path, uri)
    return uri, rows


def _to_mongo(target: MongoTarget, changes: str) -> tuple[str, int]:
    """The rows that the run has touched; all, into a collection that is empty, or if nobody knows those any more."""
    from airflow.providers.mongo.hooks.mongo import MongoHook
    from pymongo import ReplaceOne

    rows = 0
    with MongoHook(target.connection) as hook:
        collection = hook.get_collection(target.collection, target.database)
        some = curating.has_table(changes) and collection.find_one({}, {"_id": 1})
        table = changes if some else "training_examples"
        for part in _parts(table):
            documents = [{"_id": row.pop("text_hash"), **row} for row in part.to_pylist()]
            for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
                some = documents[start : start + DOCUMENTS_AT_ONCE]
                collection.bulk_write(
                    [ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in some], ordered=False
                )
            rows += len(documents)
    return f"{target.connection}: {target.database}.{target.collection}", rows
