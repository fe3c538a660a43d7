"""Reads a week's landed files with the upload path's reader: text-only Parquet of good rows, and why others are none.

A few thousand rows are in memory at a time, however large the files are.
"""
# ruff: noqa: TID253 - only imported inside tasks

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from include import lake, objects
from include.datasets.labels import PLACEHOLDERS
from include.datasets.sorting import REJECTED
from include.datasets.spool import Spooled, SpoolJob, judged_batches, spool
from include.ingestion.landing import Landed
from include.ingestion.sources import Source
from include.settings import settings

RAW = pa.schema(
    [
        (name, pa.string())
        for name in ("text_hash", "text", "label", "source", "seen_at", "trust", "file", "row", "extra")
    ]
)
"""All columns are text, so that no warehouse guesses at a type; ``transform.sql`` makes a number of ``trust``."""

SCHEMAS = {"raw": RAW, "unlabelled": RAW, "rejected": REJECTED}

REPEATED = ["label", "source", "seen_at", "trust", "file"]
"""Columns with few values: looking for a dictionary of texts takes half of the time of writing them."""


NAME_THEM = "; or for this source: columns: {text: …, label: …} in the list of sources (BERT_SOURCES)"


class FileRead(BaseModel):
    """What became of one file's rows, each taken by itself."""

    source: str
    name: str
    uri: str
    labelled: bool
    rows_in: int = 0
    good: int = 0
    by_rule: dict[str, int] = {}
    reason: str = ""  # why the file as a whole cannot be read
    warnings: list[str] = []


class Readings(NamedTuple):
    """Files of a week, read."""

    files: list[FileRead]
    raw_uri: str
    unlabelled_uri: str
    rejected_uri: str


def read_files(landed: Iterable[tuple[Source, Landed]], run_id: str, quarantine_id: str) -> Readings:
    """Reads landed files; writes their good rows to the run's staging, and rejected ones to quarantine."""
    files: list[FileRead] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {part: folder / f"{part}.parquet" for part in SCHEMAS}
        with ExitStack() as stack:
            writers = {
                part: stack.enter_context(
                    pq.ParquetWriter(path, SCHEMAS[part], compression="zstd", use_dictionary=REPEATED)
                )
                for part, path in paths.items()
            }
            for number, (source, file) in enumerate(landed):
                files.append(_read(source, file, folder / str(number), writers, quarantine_id))
        uris = {part: lake.staging(run_id, f"{part}.parquet") for part in ("raw", "unlabelled")}
        uris["rejected"] = lake.quarantine(quarantine_id, "rejected.parquet")
        for part, path in paths.items():
            if part != "rejected" or any(file.by_rule for file in files):
                objects.upload_file(path, uris[part])
    return Readings(files, uris["raw"], uris["unlabelled"], uris["rejected"])


def _read(source: Source, file: Landed, path: Path, writers: dict[str, Any], quarantine_id: str) -> FileRead:
    config = settings()
    read = FileRead(source=source.name, name=file.name, uri=file.uri, labelled=source.labelled)
    objects.download_file(file.uri, path)
    text = source.columns.text or config.text_column
    job = SpoolJob(
        path=path,
        key=file.name,
        target=path.with_suffix(".arrow"),
        text_column=text,
        label_column=(source.columns.label or config.label_column) if source.labelled else text,
        labelled=source.labelled,
        max_characters=config.max_text_characters,
    )
    spooled = spool(job)
    path.unlink()
    if spooled.reason:
        target = lake.quarantine(quarantine_id, f"files/{file.source}/{lake.plain(file.name)}")
        objects.filesystem(file.uri).cp_file(file.uri, target)
        reason = spooled.reason + (NAME_THEM if " column among " in spooled.reason else "")
        return read.model_copy(update={"reason": reason, "rows_in": 1, "by_rule": {"unreadable_file": 1}})
    rules: Counter[str] = Counter()
    good = 0
    for accepted, rejected in _sorted(spooled, source, file):
        writers["raw" if source.labelled else "unlabelled"].write_table(accepted)
        writers["rejected"].write_table(rejected)
        rules.update(rejected["rule"].to_pylist())
        good += len(accepted)
    for part in spooled.targets:
        part.unlink()
    return read.model_copy(
        update={
            "rows_in": spooled.rows,
            "good": good,
            "by_rule": dict(rules),
            "warnings": [*file.warnings, *spooled.warnings],
        }
    )


def _sorted(spooled: Spooled, source: Source, file: Landed) -> Iterator[tuple[Any, Any]]:
    """Good and rejected rows, part by part."""
    seen_at = file.seen_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    for batch in judged_batches(spooled):
        table = _without_label(pa.Table.from_batches([batch])) if source.labelled else pa.Table.from_batches([batch])
        is_good = pc.equal(table["rule"], "")
        good, bad = table.filter(is_good), table.filter(pc.invert(is_good))
        same = {"source": source.name, "seen_at": seen_at, "trust": str(source.trust), "file": file.name}
        columns = {"text_hash": _hashes(good["key"]), "row": good["row"].cast(pa.string())}
        columns |= {name: pa.repeat(value, len(good)) for name, value in same.items()}
        columns |= {name: good[name] for name in ("text", "label", "extra")}
        names = pa.array([f"{source.name}/{file.name}"] * len(bad), pa.string())
        rejected = [names, *(bad[name] for name in ("row", "text", "label", "rule", "reason"))]
        yield (
            pa.table([columns[name] for name in RAW.names], schema=RAW),
            pa.table(rejected, schema=REJECTED),
        )


def _hashes(keys: Any) -> Any:
    """Numbers as texts of 16 hexadecimal digits."""
    digits = keys.to_numpy().astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, len(digits) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(digits))


def _without_label(table: Any) -> Any:
    """Marks rows whose label stands for none; what else a label means is known once all labels are."""
    placeholders = pa.array(sorted(PLACEHOLDERS), pa.string())
    missing = pc.and_(pc.is_in(pc.utf8_lower(table["label"]), placeholders), pc.equal(table["rule"], ""))
    if not pc.any(missing).as_py():
        return table
    for name, value in (("rule", "label_missing"), ("reason", "the label is missing, or stands for none")):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pc.if_else(missing, value, table[name]))
    return table
