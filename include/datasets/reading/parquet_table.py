"""Reads Parquet files, some rows at a time."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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

ROWS = 8192  # at once: a repeated value may be long


def read_parquet(path: Path, wanted: Wanted, partitions: Mapping[str, str | None], limit: int) -> Table:
    """The rows of a Parquet file, as long as they take at most ``limit`` bytes. Raises UnreadableFileError."""
    try:
        file = pq.ParquetFile(path)
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
        for batch in file.iter_batches(ROWS, columns=columns):
            values = {at: _decoded(batch.column(here)) for here, at in enumerate(wanted)}
            left -= sum(column.nbytes for column in values.values())
            if left < 0:
                raise UnreadableFileError(
                    f"the file unpacks to more than {limit / 2**30:.3g} GiB (BERT_MAX_UNPACKED_GIB); split it"
                )
            yield _frame(values, places, before, batch.num_rows)
            before += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"the file is damaged from row {before + 1} on: {error}") from error


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
