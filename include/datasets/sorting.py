"""Sorts an intake's judged rows: good ones to be trained on, rejected ones to be mended and sent again."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.datasets.ahead import ahead
from include.datasets.judging import Numbers, Rows
from include.datasets.spool import Spooled, spooled_rows

ACCEPTED = pa.schema([(name, pa.string()) for name in ("text", "label", "source", "extra")])
"""Accepted rows: ``source`` is the file and row they come from, ``extra`` the file's other columns as JSON or empty."""

REJECTED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), *((name, pa.string()) for name in ("text", "label", "rule", "reason"))]
)
"""Rejected rows, as they came; with these names they can be mended and uploaded again."""


def sort_rows(
    rows: Rows, files: Sequence[tuple[str, str, Spooled]], folder: Path, kept_out: Numbers
) -> dict[str, Path]:
    """Writes ``accepted.parquet`` into a folder, and rejected rows by where they go; returns these paths by that.

    ``rows`` are those of all files, judged, in order; ``files`` are their keys, where their rejected rows go, and their
    spooled rows. Rows that are ``kept_out`` go to neither.
    """
    rejected: dict[str, Path] = {}
    good, bad = rows.good & ~kept_out, ~rows.good & ~kept_out
    with ExitStack() as stack:
        options = {"use_dictionary": ["label"], "write_statistics": False, "compression": "lz4"}
        accepted = stack.enter_context(pq.ParquetWriter(folder / "accepted.parquet", ACCEPTED, **options))
        writers: dict[str, Any] = {}
        for uri, accepted_table, rejected_table in ahead(_sorted(rows, files, good, bad)):
            if accepted_table is not None:
                accepted.write_table(accepted_table)
            if rejected_table is not None:
                if uri not in writers:
                    rejected[uri] = folder / f"rejected-{len(writers)}.parquet"
                    writers[uri] = stack.enter_context(pq.ParquetWriter(rejected[uri], REJECTED))
                writers[uri].write_table(rejected_table)
    return rejected


def _sorted(
    rows: Rows, files: Sequence[tuple[str, str, Spooled]], good: Numbers, bad: Numbers
) -> Iterator[tuple[str, Any, Any]]:
    """Where rejected rows go, with some accepted and some rejected rows, either of them None if there are none."""
    names = pa.array(rows.names, pa.string())
    at = 0
    for key, uri, file in files:
        for batch in spooled_rows(file):
            here = slice(at, at + batch.num_rows)
            at += batch.num_rows
            table = pa.Table.from_batches([batch])
            accepted = rejected = None
            if good[here].any():
                labels = names.take(pa.array(rows.label[here][good[here]]))
                accepted = _accepted(_only(table, good[here]), labels, key)
            if bad[here].any():
                verdicts = [rows.broken[place] for place in (here.start + np.flatnonzero(bad[here])).tolist()]
                labels = names.take(pa.array(rows.label[here][bad[here]]))
                rejected = _rejected(_only(table, bad[here]), labels, verdicts, key)
            yield uri, accepted, rejected


def accepted_again(dataset: pd.DataFrame, path: Path) -> int:
    """Writes a dataset's own rows as accepted ones; returns how many they are."""
    columns = {name: dataset.get(name, "") for name in ACCEPTED.names}
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(columns), ACCEPTED, preserve_index=False), path)
    return len(dataset)


def _only(table: pa.Table, chosen: Numbers) -> pa.Table:
    return table if chosen.all() else table.filter(pa.array(chosen))


def _accepted(table: pa.Table, labels: Any, key: str) -> pa.Table:
    source = pc.binary_join_element_wise(f"{key} row ", table["row"].cast(pa.string()), "")
    return pa.table([table["text"], labels, source, table["extra"]], schema=ACCEPTED)


def _rejected(table: pa.Table, labels: Any, verdicts: Sequence[tuple[str, str]], key: str) -> pa.Table:
    rules, reasons = zip(*verdicts, strict=True)
    file = pa.array([key] * len(verdicts), pa.string())
    columns = [file, table["row"], table["text"], labels, pa.array(rules, pa.string()), pa.array(reasons, pa.string())]
    return pa.table(columns, schema=REJECTED)
