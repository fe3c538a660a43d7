"""What a week's merge does to the warehouse's tables, in a real PostgreSQL."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from include import sql
from include.orchestration import curating
from include.orchestration import warehouse as connected
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

WEEK = "2026-W01"
OLD = """
CREATE TABLE example_sightings (text_hash text, label text, source text, seen_at text, text text NOT NULL,
    trust integer NOT NULL, copies bigint NOT NULL, week text NOT NULL,
    PRIMARY KEY (text_hash, label, source, seen_at));
CREATE TABLE training_examples (text_hash text PRIMARY KEY, text text NOT NULL, label text NOT NULL,
    source text NOT NULL, first_seen text NOT NULL, last_seen text NOT NULL, label_version integer NOT NULL,
    exported_version integer NOT NULL DEFAULT 0);
INSERT INTO example_sightings VALUES ('1a', 'old', 'desk', '2025-12-01', 'a', 0, 1, '2025-W49'),
    ('1b', 'x', 'desk', '2026-01-02', 'b', 0, 1, '2026-W01');
INSERT INTO training_examples VALUES ('1a', 'a', 'old', 'desk', '2025-12-01', '2025-12-01', 1, 1),
    ('1b', 'b', 'x', 'desk', '2026-01-02', '2026-01-02', 1, 1);
"""
"""As versions with a key of four columns left them."""


@pytest.fixture(autouse=True)
def warehouse(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))
    yield engine
    with engine.begin() as connection:
        for name in ("example_sightings", "training_examples", "curated", "changes", "update"):
            connection.execute(sa.text(f'DROP TABLE IF EXISTS "{name}"'))


def merge(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    schema = curating.schema_of(*curating.CURATED)
    curating.write_rows("curated", [pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows])])
    curating.settle("curated", "changes", WEEK, ["desk"], "newest")
    curating.prepare_merge("changes", "update")
    with connected.warehouse().begin() as connection:
        columns = ", ".join(sql.COLUMNS)
        updates = ", ".join(f"{name} = excluded.{name}" for name in sql.COLUMNS)
        connection.execute(
            sa.text(
                f'INSERT INTO training_examples ({columns}) SELECT {columns} FROM "update" '
                f"ON CONFLICT (text_hash) DO UPDATE SET {updates}"  # as the Astro SDK merges
            )
        )
    curating.insert_new("changes")
    return curating.changes_of("changes")


def table(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query)).fetchall()]


def test_tables_of_older_versions_lose_their_wide_key_and_nothing_else(warehouse: Engine) -> None:
    with warehouse.begin() as connection:
        connection.execute(sa.text(OLD))
    rows = [("1a", "A", "new", "desk", "2026-01-02", 0, 1), ("1c", "c", "x", "desk", "2026-01-02", 0, 1)]
    for found in (merge(rows), merge(rows)):
        assert found["contradicted"] == 1
    assert (found["new"], found["changed"], found["known"]) == (0, 0, 2)
    assert table(warehouse, "SELECT text_hash, text, label, label_version FROM training_examples ORDER BY 1") == [
        ("1a", "A", "new", 2), ("1b", "b", "x", 1), ("1c", "c", "x", 1)
    ]  # fmt: skip
    assert table(warehouse, "SELECT text_hash, label FROM example_sightings ORDER BY 1, 2") == [
        ("1a", "new"), ("1a", "old"), ("1c", "x")
    ], "the week's are replaced, others stay"  # fmt: skip
    found = sa.inspect(warehouse)
    assert found.get_pk_constraint("example_sightings")["name"] is None
    assert curating.TEXTS_INDEX in {index["name"] for index in found.get_indexes("example_sightings")}


def test_a_week_that_is_merged_again_writes_no_row_of_the_table_again(warehouse: Engine) -> None:
    rows = [(f"{number:02x}", f"text {number}", "a", "desk", "2026-01-02", 0, 1) for number in range(20)]
    assert merge(rows)["new"] == 20
    written = "SELECT text_hash, xmin::text FROM training_examples ORDER BY 1"
    before = table(warehouse, written)
    assert merge(rows)["known"] == 20
    assert table(warehouse, written) == before


def test_texts_that_were_mended_into_the_same_are_one_sighting(warehouse: Engine) -> None:
    merge([("0a", text, "a", "desk", "2026-01-02", 0, 2) for text in ("Text", "text")])
    assert table(warehouse, "SELECT text, copies FROM example_sightings") == [("Text", 4)]
