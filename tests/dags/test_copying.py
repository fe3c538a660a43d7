"""Rows between Arrow and a real PostgreSQL: what goes in comes out, and what breaks is told."""

import re
from collections.abc import Iterator

import psycopg2
import pyarrow as pa
import pytest
from sqlalchemy.engine import Engine

from include.orchestration import copying
from include.orchestration.warehouse import warehouse
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

SCHEMA = pa.schema([("text", pa.string()), ("trust", pa.int64())])
TEXTS = ["plain", 'a "quote"', "two\nlines\r\nand, a comma", "\\N", "\\.", "", " ", "Grüße 東京", "a\ttab", "'", "NULL"]


@pytest.fixture(autouse=True)
def connection_to_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))


def write(parts: Iterator[pa.RecordBatch]) -> int:
    connection = warehouse().raw_connection()
    with connection.cursor() as cursor:
        count = copying.make_table(cursor, "copied", SCHEMA, parts)
    connection.commit()
    return count


def batch(texts: list[str | None]) -> pa.RecordBatch:
    return pa.record_batch([texts, list(range(len(texts)))], schema=SCHEMA)


def test_texts_come_out_as_they_went_in() -> None:
    assert write(iter([batch(TEXTS), batch([]), batch([None])])) == len(TEXTS) + 1
    found = list(copying.rows_of("SELECT text, trust FROM copied ORDER BY ctid", SCHEMA))
    assert [text for part in found for text in part["text"].to_pylist()] == [*TEXTS, ""]
    assert found[0]["trust"].to_pylist()[:3] == [0, 1, 2]
    assert write(iter([])) == 0
    assert list(copying.rows_of("SELECT text, trust FROM copied", SCHEMA)) == []


def test_many_rows_come_part_by_part_and_whoever_stops_early_waits_for_nothing() -> None:
    long = ["x" * 1000] * 10_000
    assert write(batch(long) for _ in range(4)) == 40_000
    parts = copying.rows_of("SELECT text, trust FROM copied", SCHEMA)
    assert 0 < len(next(parts)) < 40_000
    parts.close()


def test_what_the_warehouse_refuses_is_its_own_word() -> None:
    with pytest.raises(psycopg2.errors.UndefinedTable):
        list(copying.rows_of("SELECT text, trust FROM there_is_none", SCHEMA))
    write(iter([batch(["a"])]))
    with pytest.raises(psycopg2.errors.DivisionByZero):
        list(copying.rows_of("SELECT text, 1 / (trust - trust) AS trust FROM copied", SCHEMA))


def test_what_breaks_while_rows_are_made_leaves_the_table_as_it_was() -> None:
    write(iter([batch(["a"])]))

    def broken() -> Iterator[pa.RecordBatch]:
        yield batch(["b"])
        raise ValueError("broken by the test")

    with pytest.raises((ValueError, psycopg2.Error), match=re.escape("broken by the test")):
        write(broken())
    (found,) = copying.rows_of("SELECT text, trust FROM copied", SCHEMA)
    assert found["text"].to_pylist() == ["a"]
