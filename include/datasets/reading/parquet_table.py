"""Reads Parquet files, some rows at a time."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.datasets.reading.table import (
    COLUMNS,
    Places,
    Table,
    UnreadableFileError,
    Wanted,
    extra_json,
    find_places,
)

ROWS = 8192  # at once, or fewer where they are long
AT_ONCE_BYTES = 64 << 20  # a value that stands once in the file may be repeated in each row
VALUE_BYTES = 32  # of a value inside a list, as Python holds it


def read_parquet(path: Path, wanted: Wanted, partitions: Mapping[str, str | None], limit: int) -> Table:
    """The rows of a Parquet file, as long as they take at most ``limit`` bytes. Raises UnreadableFileError."""
    try:
        schema = pq.read_metadata(path).schema
        leaves = [schema.column(at) for at in range(len(schema))]
        # Strings stay as they are stored, a repeated one once, until it is known how long the rows are.
        stored = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and not leaf.max_repetition_level]
        file = pq.ParquetFile(path, read_dictionary=stored)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"the file is not Parquet, or it is cut off: {error}") from error
    names = file.schema_arrow.names
    return Table(_frames(file, find_places(names, wanted, partitions), limit))


def _frames(file: Any, places: Places, limit: int) -> Iterator[pd.DataFrame]:
    before, left = 0, limit
    wanted = sorted(at for at in (places.text, places.label, *places.extra) if at is not None)
    # Two columns may have one name: then all are read, since names are all that can be asked for.
    if len(set(places.names)) < len(places.names):
        columns, wanted = None, list(range(len(places.names)))
    else:
        columns = [places.names[at] for at in wanted]
    try:
        for batch in file.iter_batches(rows_at_once(file), columns=columns):
            sizes = sum(_row_bytes(column) for column in batch.columns)
            left -= int(sizes.sum())
            if left < 0:
                raise UnreadableFileError(
                    f"the file unpacks to more than {limit / 2**30:.3g} GiB (BERT_MAX_UNPACKED_GIB); split it"
                )
            for part in _parts(batch, sizes):
                values = {at: _decoded(part.column(here)) for here, at in enumerate(wanted)}
                yield _frame(values, places, before, part.num_rows)
                before += part.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"the file is damaged from row {before + 1} on: {error}") from error


def rows_at_once(file: Any) -> int:
    """How many rows may be decoded before their length is known: fewer if they have long lists or wide values."""
    metadata, longest = file.metadata, 1
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        for leaf in range(group.num_columns):
            values = group.column(leaf).num_values * max(metadata.schema.column(leaf).length, VALUE_BYTES)
            longest = max(longest, values // max(group.num_rows, 1))
    return max(1, min(ROWS, AT_ONCE_BYTES // longest))


def _row_bytes(column: Any) -> Any:
    """The (n,) bytes that each row of a column takes once it is decoded; as good as known for what is no string."""
    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        return pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.full(len(column), -(-column.nbytes // max(len(column), 1)), np.int64)


def _parts(batch: Any, sizes: Any) -> Iterator[Any]:
    """A batch cut where its rows, of these sizes in bytes, would take too much at once."""
    parts = np.cumsum(sizes) // AT_ONCE_BYTES
    starts = [0, *(np.flatnonzero(np.diff(parts)) + 1), batch.num_rows]
    for start, end in pairwise(starts):
        yield batch.slice(start, end - start)


def _frame(columns: Mapping[int, Any], places: Places, before: int, size: int) -> pd.DataFrame:
    label = None if places.label is None else _values(columns[places.label])
    others = {places.names[at]: _values(columns[at]) for at in places.extra}
    return pd.DataFrame(
        {
            "row": np.arange(before + 1, before + size + 1),
            "text": pd.Series(_values(columns[places.text]), dtype=object),
            "label": pd.Series(label if label is not None else [places.label_in_path] * size, dtype=object),
            "rule": "",
            "reason": "",
            "extra": [
                extra_json({**places.in_path, **{name: some[at] for name, some in others.items()}})
                for at in range(size)
            ],
        },
        columns=COLUMNS,
    )


def _decoded(column: Any) -> Any:
    """A column without its dictionary, which may stand for many times its own size."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _values(column: Any) -> list[Any]:
    """A column as Python values; bytes are text, and those that are not valid UTF-8 stay, as surrogates."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [None if not one.is_valid else one.as_buffer().to_pybytes() for one in column]
    except (OverflowError, ValueError):  # a date that Python does not have
        try:
            values = column.cast(pa.int64()).to_pylist()
        except pa.ArrowException:  # it stands inside a list or an object
            values = [_value(one) for one in column]
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def _value(one: Any) -> Any:
    try:
        return one.as_py()
    except (OverflowError, ValueError):
        return None
