"""What pyarrow does for the readers: CSV blocks, strings and JSON objects, a column at a time."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from include.datasets.reading.table import printable

_UNQUOTED = bytes(code for code in range(32, 256) if code not in b'"\\')  # bytes that stand in JSON as they are


def read_block(block: bytes, delimiter: str, width: int) -> list[Any] | None:
    """A block's columns as binary arrays; None if a row has not ``width`` cells."""
    odd: list[object] = []

    def note(row: object) -> str:
        odd.append(row)
        return "skip"

    names = [str(at) for at in range(width)]
    try:
        table = pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(column_names=names, block_size=len(block) + 1),
            parse_options=pacsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note, ignore_empty_lines=True
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False, check_utf8=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    return None if odd else [table.column(at).combine_chunks() for at in range(width)]


def texts(column: Any) -> "pd.Series[Any]":
    """A binary array as strings, Arrow's if all are valid; if not, Python's, with the odd bytes as surrogates."""
    try:
        return pd.Series(column.cast(pa.string()), dtype=pd.ArrowDtype(pa.string()))
    except pa.ArrowInvalid:
        values = [value.as_buffer().to_pybytes().decode("utf-8", "surrogateescape") for value in column]
        return pd.Series(values, dtype=object)


def json_objects(columns: Mapping[str, Any], size: int) -> "pd.Series[Any]":
    """Rows of binary columns as JSON objects, without what is empty; an empty string if nothing is left."""
    objects = pa.repeat(pa.scalar("", pa.string()), size)
    for name, column in columns.items():
        members = pc.binary_join_element_wise(json.dumps(name, ensure_ascii=False) + ": ", _quoted(column), "")
        members = pc.if_else(pc.equal(pc.binary_length(column), 0), "", members)
        comma = pc.if_else(pc.or_(pc.equal(objects, ""), pc.equal(members, "")), "", ", ")
        objects = pc.binary_join_element_wise(objects, comma, members, "")
    if columns:
        objects = pc.if_else(pc.equal(objects, ""), "", pc.binary_join_element_wise("{", objects, "}", ""))
    return pd.Series(objects, dtype=pd.ArrowDtype(pa.string()))


def _quoted(column: Any) -> Any:
    """A binary array's strings as JSON writes them."""
    buffer = column.buffers()[2]
    try:
        values = column.cast(pa.string())
    except pa.ArrowInvalid:
        values = None
    if values is None or (buffer is not None and len(buffer.to_pybytes().translate(None, _UNQUOTED))):
        return pa.array([printable(json.dumps(text, ensure_ascii=False)) for text in texts(column)], pa.string())
    return pc.binary_join_element_wise('"', values, '"', "")
