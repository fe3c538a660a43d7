"""The warehouse's table of curated texts, ``training_examples``, and how a week's rows come into it.

``example_sightings`` has every text with the label that a source gave it at a time; a week's are replaced whole, so a
week that is done twice changes nothing. What a text's label is, and since when, is settled from all its sightings by
the rule of the list of sources: weeks that are done later come to the same as weeks that were done in time.
"""
# Only imported inside tasks.

import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from airflow.providers.postgres.hooks.postgres import PostgresHook

from include import sql
from include.orchestration.defaults import WAREHOUSE

logger = logging.getLogger(__name__)

ETL_PREFIX = "etl_"
KINDS = ("raw", "sightings", "curated", "changes", "export")
ROWS_AT_ONCE = 20_000
SHOWN = 50
_METADATA = sa.MetaData()
SIGHTINGS = sa.Table(
    "example_sightings",
    _METADATA,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("text_hash", "label", "source", "seen_at")),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("trust", sa.Integer, nullable=False),
    sa.Column("copies", sa.BigInteger, nullable=False),
    sa.Column("week", sa.Text, nullable=False, index=True),
)
EXAMPLES = sa.Table(
    "training_examples",
    _METADATA,
    sa.Column("text_hash", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("text", "label", "source", "first_seen", "last_seen")),
    sa.Column("label_version", sa.Integer, nullable=False),
    sa.Column("exported_version", sa.Integer, nullable=False, server_default="0"),
)
CURATED = ("text_hash", "text", "label", "source", "seen_at", "trust", "copies")


def engine() -> Any:
    """The warehouse's."""
    return PostgresHook(WAREHOUSE).get_sqlalchemy_engine()


def table_name(kind: str, dag_id: str, run_id: str) -> str:
    """A run's table of a kind: raw, sightings, curated, changes, export."""
    return f"{ETL_PREFIX}{kind}_{hashlib.sha256(f'{dag_id} {run_id}'.encode()).hexdigest()[:20]}"


def rows_of(name: str, columns: tuple[str, ...]) -> Iterator[list[Any]]:
    """A table's rows, some at a time, in order of their hash; the server keeps the others."""
    wanted = sa.select(*map(sa.column, columns)).select_from(sa.table(name)).order_by(*map(sa.column, columns))
    with engine().connect().execution_options(stream_results=True, max_row_buffer=ROWS_AT_ONCE) as connection:
        result = connection.execute(wanted)
        while some := result.fetchmany(ROWS_AT_ONCE):
            yield some


def write_rows(name: str, parts: Iterator[Sequence[tuple[Any, ...]]]) -> int:
    """Makes a table of rows with the columns ``CURATED``, replacing what was there; returns how many."""
    count = 0
    connection = engine().raw_connection()
    try:
        with connection.cursor() as cursor:
            cursor.execute(f'DROP TABLE IF EXISTS "{name}"')
            types = {"trust": "integer", "copies": "bigint"}
            columns = ", ".join(f"{column} {types.get(column, 'text')}" for column in CURATED)
            cursor.execute(f'CREATE TABLE "{name}" ({columns})')
            for part in parts:
                content = io.StringIO()
                csv.writer(content, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(part)
                content.seek(0)
                cursor.copy_expert(f'COPY "{name}" FROM STDIN WITH (FORMAT csv)', content)
                count += len(part)
        connection.commit()
    finally:
        connection.close()
    return count


def settle(curated: str, changes: str, week: str, sources: list[str], rule: str) -> None:
    """Enters a week's sightings, and makes a table of what becomes of their texts; in one transaction."""
    _METADATA.create_all(engine())
    query = sql.settle(f'"{curated}"', rule)
    columns = ", ".join(CURATED)
    with engine().begin() as connection:
        connection.execute(sa.delete(SIGHTINGS).where(SIGHTINGS.c.week == week, SIGHTINGS.c.source.in_(sources)))
        connection.execute(
            sa.text(
                # Mended texts may have become the same.
                f"INSERT INTO example_sightings ({columns}, week) SELECT text_hash, MIN(text), label, source, seen_at, "
                f'MAX(trust), SUM(copies), :week FROM "{curated}" AS new '
                "WHERE NOT EXISTS (SELECT 1 FROM example_sightings AS old WHERE old.text_hash = new.text_hash "
                "AND old.label = new.label AND old.source = new.source AND old.seen_at = new.seen_at) "
                "GROUP BY text_hash, label, source, seen_at"
            ),
            {"week": week},
        )
        connection.execute(sa.text(f'DROP TABLE IF EXISTS "{changes}"'))
        connection.execute(sa.text(f'CREATE TABLE "{changes}" AS {query}'))


def changes_of(changes: str) -> dict[str, Any]:
    """How many of a run's texts are new, have another label, or are as they were; and the contradicted ones."""
    table = sa.table(changes, *map(sa.column, ("kind", "contradicted", "text", "label", "text_hash")))
    with engine().connect() as connection:
        counts = dict(connection.execute(sa.select(table.c.kind, sa.func.count()).group_by(table.c.kind)).fetchall())
        wanted = table.c.contradicted == 1
        number = connection.execute(sa.select(sa.func.count()).where(wanted)).scalar_one()
        some = connection.execute(sa.select(table).where(wanted).order_by(table.c.text).limit(SHOWN)).mappings().all()
        hashes = [row["text_hash"] for row in some]
        given = connection.execute(
            sa.select(SIGHTINGS.c.text_hash, SIGHTINGS.c.label, SIGHTINGS.c.source, SIGHTINGS.c.seen_at)
            .where(SIGHTINGS.c.text_hash.in_(hashes))
            .order_by(SIGHTINGS.c.seen_at)
        ).fetchall()
    shown = [
        {
            "text": row["text"],
            "label": row["label"],
            "given": [f"{one.label} ({one.source}, {one.seen_at[:10]})" for one in given if one[0] == row["text_hash"]],
        }
        for row in some
    ]
    names = ("new", "changed", "known")
    return {**{name: counts.get(name, 0) for name in names}, "contradicted": number, "contradictions": shown}


def prepare_export(name: str) -> int:
    """Makes a table of the rows that are new or have another label since they were last exported; returns how many."""
    with engine().begin() as connection:
        connection.execute(sa.text(f'DROP TABLE IF EXISTS "{name}"'))
        connection.execute(
            sa.text(
                f'CREATE TABLE "{name}" AS SELECT text_hash, text, label, source, label_version FROM training_examples '
                "WHERE label_version > exported_version"
            )
        )
        return int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one())


def enter_export(name: str) -> None:
    """Enters that a table's rows have been exported; repeated, it changes nothing."""
    with engine().begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE training_examples SET exported_version = sent.label_version "
                f'FROM "{name}" AS sent WHERE sent.text_hash = training_examples.text_hash '
                "AND training_examples.exported_version < sent.label_version"
            )
        )


def has_table(name: str) -> bool:
    """Whether there is a table."""
    return bool(sa.inspect(engine()).has_table(name))


def drop(dag_id: str, run_id: str) -> None:
    """Drops a run's tables."""
    for kind in KINDS:
        sa.Table(table_name(kind, dag_id, run_id), sa.MetaData()).drop(engine(), checkfirst=True)
