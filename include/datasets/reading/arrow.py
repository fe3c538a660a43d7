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
    members = [_members(name, column) for name, column in columns.items()]
    if size and columns and all(pc.min(pc.binary_length(column)).as_py() for column in columns.values()):
        # None is empty: all is joined at once, and what stands between two cells is one constant.
        parts, between = [], "{"
        for before, values, after in members:
            parts += [between + before, values]
            between = f"{after}, "
        objects = pc.binary_join_element_wise(*parts, members[-1][2] + "}", "")
        return pd.Series(objects, dtype=pd.ArrowDtype(pa.string()))
    objects = pa.repeat(pa.scalar("", pa.string()), size)
    for column, (before, values, after) in zip(columns.values(), members, strict=True):
        member = pc.binary_join_element_wise(before, values, after, "")
        member = pc.if_else(pc.equal(pc.binary_length(column), 0), "", member)
        comma = pc.if_else(pc.or_(pc.equal(objects, ""), pc.equal(member, "")), "", ", ")
        objects = pc.binary_join_element_wise(objects, comma, member, "")
    if columns:
        objects = pc.if_else(pc.equal(objects, ""), "", pc.binary_join_element_wise("{", objects, "}", ""))
    return pd.Series(objects, dtype=pd.ArrowDtype(pa.string()))


def _members(name: str, column: Any) -> tuple[str, Any, str]:
    """A binary array's strings as members of JSON objects: what stands before each, the strings, and what after."""
    key = f"{json.dumps(name, ensure_ascii=False)}: "
    buffer = column.buffers()[2]
    try:
        values = column.cast(pa.string())
    except pa.ArrowInvalid:
        values = None
    if values is None or (buffer is not None and len(buffer.to_pybytes().translate(None, _UNQUOTED))):
        quoted = [printable(json.dumps(text, ensure_ascii=False)) for text in texts(column)]
        return key, pa.array(quoted, pa.string()), ""
    return f'{key}"', values, '"'
