"""Sorts an intake's judged rows: good ones to be trained on, rejected ones to be mended and sent again."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.datasets.spool import SpoolJob, spooled_rows

ACCEPTED = pa.schema([(name, pa.string()) for name in ("text", "label", "source", "extra")])
"""Accepted rows: ``source`` is the file and row they come from, ``extra`` the file's other columns as JSON or empty."""

REJECTED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), *((name, pa.string()) for name in ("text", "label", "rule", "reason"))]
)
"""Rejected rows, as they came; with these names they can be mended and uploaded again."""


def sort_rows(
    rows: pd.DataFrame, files: Sequence[tuple[str, str, SpoolJob]], folder: Path, kept_out: "np.ndarray[Any, Any]"
) -> dict[str, Path]:
    """Writes ``accepted.parquet`` into a folder, and each batch's rejected rows; returns the latter's paths by batch.

    ``rows`` are those of all files, judged, in order; ``files`` are their keys, batches and spooled rows. Rows that are
    ``kept_out`` go to neither.
    """
    rejected: dict[str, Path] = {}
    good = (rows["rule"].to_numpy() == "") & ~kept_out
    bad = (rows["rule"].to_numpy() != "") & ~kept_out
    with ExitStack() as stack:
        accepted = stack.enter_context(pq.ParquetWriter(folder / "accepted.parquet", ACCEPTED))
        writers: dict[str, Any] = {}
        at = 0
        for key, batch_id, job in files:
            for batch in spooled_rows(job):
                here = slice(at, at + batch.num_rows)
                at += batch.num_rows
                table = pa.table(batch)
                if good[here].any():
                    accepted.write_table(
                        _accepted(table.filter(good[here]), rows["label"].to_numpy()[here][good[here]], key)
                    )
                if bad[here].any():
                    if batch_id not in writers:
                        rejected[batch_id] = folder / f"rejected-{len(writers)}.parquet"
                        writers[batch_id] = stack.enter_context(pq.ParquetWriter(rejected[batch_id], REJECTED))
                    writers[batch_id].write_table(_rejected(table.filter(bad[here]), rows[here][bad[here]], key))
    return rejected


def accepted_again(dataset: pd.DataFrame, path: Path) -> int:
    """Writes a dataset's own rows as accepted ones; returns how many they are."""
    columns = {name: dataset.get(name, "") for name in ACCEPTED.names}
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(columns), ACCEPTED, preserve_index=False), path)
    return len(dataset)


def _accepted(table: pa.Table, labels: "np.ndarray[Any, Any]", key: str) -> pa.Table:
    source = pc.binary_join_element_wise(f"{key} row ", table["row"].cast(pa.string()), "")
    return pa.table([table["text"], pa.array(labels, pa.string()), source, table["extra"]], schema=ACCEPTED)


def _rejected(table: pa.Table, rows: pd.DataFrame, key: str) -> pa.Table:
    judged = [pa.array(rows[name].to_numpy(object), pa.string()) for name in ("label", "rule", "reason")]
    file = pa.array([key] * len(rows), pa.string())
    return pa.table([file, table["row"], table["text"], *judged], schema=REJECTED)
