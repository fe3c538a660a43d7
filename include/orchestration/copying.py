"""Rows between Arrow and the warehouse, by PostgreSQL's COPY: some thousands are in memory at a time.

No row becomes a Python object on its way: Arrow's CSV writer and reader do what psycopg2 and pandas take ten times as
long for.
"""
# Only imported inside tasks.

import io
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from airflow.providers.postgres.hooks.postgres import PostgresHook
from pyarrow import csv

from include import sql
from include.datasets.ahead import ahead
from include.orchestration.defaults import WAREHOUSE
from include.settings import settings

AT_ONCE_BYTES = 8 << 20
PIPE_BYTES = 1 << 20
BYTES_PER_CHARACTER = 8  # four of UTF-8, and quotes are doubled


def rows_of(query: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows that a query gives, part by part; its columns are those of the schema. No value may be NULL.

    Raises psycopg2's errors.
    """
    connection = PostgresHook(WAREHOUSE).get_conn()
    reading, writing = os.pipe()
    failed: list[Exception] = []

    def send() -> None:
        try:
            with os.fdopen(writing, "wb", PIPE_BYTES) as sink, connection.cursor() as cursor:
                cursor.copy_expert(f"COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE *)", sink)
        except Exception as error:
            failed.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with os.fdopen(reading, "rb", PIPE_BYTES) as source:
            yield from _parsed(source, schema)
    except pa.ArrowInvalid:
        sender.join()
        if not failed:
            raise
    finally:
        sender.join()
        connection.close()
    if failed:
        raise failed[0]


def _parsed(source: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    longest = BYTES_PER_CHARACTER * settings().max_text_characters
    reader = csv.open_csv(
        source,
        csv.ReadOptions(block_size=max(AT_ONCE_BYTES, 2 * longest)),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(column_types=schema, strings_can_be_null=False, null_values=[]),
    )
    for batch in reader:
        if len(batch):
            yield batch.cast(schema) if batch.schema != schema else batch


def make_table(
    cursor: Any, name: str, schema: pa.Schema, parts: Iterable[pa.Table | pa.RecordBatch], bytewise: bool = False
) -> int:
    """Makes a table, replacing what was there, and fills it; returns how many rows it has.

    Text is ``text``, whole numbers are ``bigint``; a text that is missing is an empty one. A ``bytewise`` table, and
    what is made of it, is sorted by bytes: several times as fast as by a language's rules.
    """
    text = f"text {sql.BYTEWISE if bytewise else ''}"
    columns = ", ".join(f'"{one.name}" {"bigint" if pa.types.is_integer(one.type) else text}' for one in schema)
    cursor.execute(f'DROP TABLE IF EXISTS "{name}"')
    cursor.execute(f'CREATE TABLE "{name}" ({columns})')
    content = _Content(parts, schema)
    cursor.copy_expert(f'COPY "{name}" FROM STDIN WITH (FORMAT csv)', content, size=PIPE_BYTES)
    return content.rows


class _Content(io.RawIOBase):
    """Parts as a file of CSV in which every cell is quoted: each is written while the one before is read."""

    def __init__(self, parts: Iterable[pa.Table | pa.RecordBatch], schema: pa.Schema) -> None:
        self.rows = 0
        self._parts = ahead(self._written(parts, schema))
        self._part = pa.BufferReader(b"")

    def read(self, size: int = -1, /) -> bytes:
        found: bytes = self._part.read(size)
        while not found and (part := next(self._parts, None)) is not None:
            self._part = pa.BufferReader(part)
            found = self._part.read(size)
        return found

    def _written(self, parts: Iterable[pa.Table | pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Buffer]:
        options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
        for part in parts:
            if not len(part):
                continue
            columns = [part[one.name].cast(one.type) for one in schema]
            filled = [pc.fill_null(one, "") if pa.types.is_string(one.type) else one for one in columns]
            sink = pa.BufferOutputStream()
            csv.write_csv(pa.table(filled, schema=schema), sink, options)
            self.rows += len(part)
            yield sink.getvalue()
