"""The warehouse's table of curated texts, ``training_examples``, and how a week's rows come into it.

``example_sightings`` has every text with the label that a source gave it at a time; a week's are replaced whole, so a
week that is done twice changes nothing. What a text's label is, and since when, is settled from all its sightings by
the rule of the list of sources: weeks that are done later come to the same as weeks that were done in time.
"""
# Only imported inside tasks.

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from airflow.exceptions import AirflowFailException
from airflow.providers.postgres.hooks.postgres import PostgresHook

from include import sql
from include.orchestration.defaults import WAREHOUSE
from include.orchestration.warehouse import warehouse

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

ETL_PREFIX = "etl_"
KINDS = ("raw", "sightings", "touched", "curated", "changes", "update", "export", "signatures")
SHOWN = 50
SORT_MEMORY = "64MB"  # of the warehouse's, for each sort of a merge; PostgreSQL's own default is 4
BYTEWISE_TEXT = sa.Text(collation="C")  # compared several times as fast as by a language's rules
TEXTS_INDEX, OLD_KEY = "example_sightings_texts", "example_sightings_pkey"
MAKE_TEXTS_INDEX = f"CREATE INDEX IF NOT EXISTS {TEXTS_INDEX} ON example_sightings (text_hash)"
EXAMPLES_KEY = "training_examples_pkey"
_METADATA = sa.MetaData()
SIGHTINGS = sa.Table(
    "example_sightings",
    _METADATA,
    sa.Column("text_hash", BYTEWISE_TEXT, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("label", "source", "seen_at", "text")),
    sa.Column("trust", sa.Integer, nullable=False),
    sa.Column("copies", sa.BigInteger, nullable=False),
    sa.Column("week", sa.Text, nullable=False),
    # Narrow: most of what it costs to enter rows is the index. That none is there twice is ``settle``'s to see to.
    sa.Index(TEXTS_INDEX, "text_hash"),
    # A week's rows lie together: this knows where, and costs nothing when rows come.
    sa.Index("example_sightings_weeks", "week", postgresql_using="brin"),
)
EXAMPLES = sa.Table(
    "training_examples",
    _METADATA,
    sa.Column("text_hash", BYTEWISE_TEXT, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("text", "label", "source", "first_seen", "last_seen")),
    sa.Column("label_version", sa.Integer, nullable=False),
    sa.Column("exported_version", sa.Integer, nullable=False, server_default="0"),
)
CURATED = ("text_hash", "text", "label", "source", "seen_at", "trust", "copies")
NUMBERS = ("trust", "copies", "label_version")
KEY = ("text_hash", "label", "source", "seen_at", "trust")
"""The columns by which ``transform`` makes one row of many."""
TOUCHED = (*KEY, "mended_hash", "mended")
"""A row that a rule has mended, and what it has become; both are empty if it was left out."""


def table_name(kind: str, dag_id: str, run_id: str) -> str:
    """A run's table of one of the ``KINDS``."""
    return f"{ETL_PREFIX}{kind}_{hashlib.sha256(f'{dag_id} {run_id}'.encode()).hexdigest()[:20]}"


def schema_of(*columns: str) -> "pa.Schema":
    """Columns of these tables with their types."""
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name in NUMBERS else pa.string()) for name in columns])


def rows_of(name: str, columns: tuple[str, ...], order: tuple[str, ...] = ()) -> Iterator["pa.RecordBatch"]:
    """A table's rows, part by part; the server keeps the others."""
    from include.orchestration import copying

    query = f'SELECT {", ".join(columns)} FROM "{name}"' + (f" ORDER BY {', '.join(order)}" if order else "")
    return copying.rows_of(query, schema_of(*columns))


def some_of(name: str, columns: tuple[str, ...], count: int) -> list[Any]:
    """The first rows of a table by their texts' hashes, which are any of them."""
    wanted = sa.select(*map(sa.column, columns)).select_from(sa.table(name)).order_by(sa.column("text_hash"))
    with warehouse().connect() as connection:
        return list(connection.execute(wanted.limit(count)).fetchall())


def write_rows(name: str, parts: Iterable["pa.Table | pa.RecordBatch"]) -> int:
    """Makes a table of rows with the columns ``CURATED``, replacing what was there; returns how many."""
    return write_table(name, schema_of(*CURATED), parts)


def write_table(
    name: str, schema: "pa.Schema", parts: Iterable["pa.Table | pa.RecordBatch"], bytewise: bool = False
) -> int:
    """Makes a table of rows with a schema's columns, replacing what was there; returns how many."""
    from include.orchestration import copying

    connection = PostgresHook(WAREHOUSE).get_conn()
    try:
        with connection.cursor() as cursor:
            count = copying.make_table(cursor, name, schema, parts, bytewise)
        connection.commit()
    finally:
        connection.close()
    return count


def curate(sightings: str, curated: str, touched: Iterable["pa.Table"]) -> int:
    """Makes a table of the rows of another as the rules have left them; returns how many.

    Of what the rules did, only the rows ``TOUCHED`` are sent: the others never leave the warehouse again.
    """
    changed = f"{ETL_PREFIX}touched_{curated.rsplit('_', 1)[-1]}"
    write_table(changed, schema_of(*TOUCHED), touched, bytewise=True)
    same = " AND ".join(f"touched.{name} = seen.{name}" for name in KEY)
    query = (
        "SELECT COALESCE(touched.mended_hash, seen.text_hash) AS text_hash, COALESCE(touched.mended, seen.text) AS "
        f"text, {', '.join(f'seen.{name}' for name in CURATED[2:])} FROM {_quoted(sightings)} AS seen "
        f"LEFT JOIN {_quoted(changed)} AS touched ON {same} "
        "WHERE touched.text_hash IS NULL OR touched.mended_hash <> ''"
    )
    with warehouse().begin() as connection:
        connection.execute(sa.text(f"ANALYZE {_quoted(changed)}"))  # else the plan takes them for many
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {_quoted(curated)}"))
        count = int(connection.execute(sa.text(f"CREATE TABLE {_quoted(curated)} AS {query}")).rowcount)
        connection.execute(sa.text(f"DROP TABLE {_quoted(changed)}"))
    return count


def create_tables() -> None:
    """Makes the tables that outlive runs, where they are not there."""
    _METADATA.create_all(warehouse())


def settle(curated: str, changes: str, week: str, sources: list[str], rule: str) -> None:
    """Enters a week's sightings, and makes a table of what becomes of their texts; in one transaction."""
    create_tables()
    columns = ", ".join(CURATED)
    # In the order of the index: several times as fast as in any other.
    entered = f"SELECT {columns}, :week FROM ({sql.enter(_quoted(curated), bytewise=sql.BYTEWISE)}) AS entered"
    with warehouse().begin() as connection:
        connection.execute(sa.text(f"SET LOCAL work_mem = '{SORT_MEMORY}'"))
        connection.execute(
            sa.text("SET LOCAL default_statistics_target = 10")
        )  # it is for plans of these queries alone
        connection.execute(sa.text("LOCK TABLE example_sightings IN SHARE ROW EXCLUSIVE MODE"))  # readers go on
        _with_narrow_index(connection)
        connection.execute(sa.text(f"ANALYZE {_quoted(curated)} (text_hash, label, source, seen_at)"))
        connection.execute(sa.delete(SIGHTINGS).where(SIGHTINGS.c.week == week, SIGHTINGS.c.source.in_(sources)))
        insert = f"INSERT INTO example_sightings ({columns}, week) {entered} ORDER BY text_hash"
        with _indexed_after(connection, SIGHTINGS, f"DROP INDEX {TEXTS_INDEX}", MAKE_TEXTS_INDEX):
            connection.execute(sa.text(insert), {"week": week})
        connection.execute(sa.text("ANALYZE example_sightings (text_hash, label, source, seen_at, week)"))
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {_quoted(changes)}"))
        query = sql.settle(_quoted(curated), rule, sql.BYTEWISE)
        connection.execute(sa.text(f"CREATE TABLE {_quoted(changes)} AS {query}"))


@contextmanager
def _indexed_after(connection: Any, table: sa.Table, drop: str, make: str) -> Iterator[None]:
    """If a table is empty, its index is made after the block has filled it: that takes half as long."""
    empty = not connection.execute(sa.select(sa.exists().select_from(table))).scalar_one()
    if empty:
        connection.execute(sa.text(drop))
    yield
    if empty:
        connection.execute(sa.text(make))


def _with_narrow_index(connection: Any) -> None:
    """Older versions made a key of four columns, each entry of which is as long as many a text."""
    found = sa.inspect(connection)
    if found.get_pk_constraint("example_sightings")["name"] == OLD_KEY:
        connection.execute(sa.text(f"ALTER TABLE example_sightings DROP CONSTRAINT {OLD_KEY}"))
        connection.execute(sa.text(MAKE_TEXTS_INDEX))


def prepare_merge(changes: str, update: str) -> None:
    """Makes a table of those rows of ``changes`` that are in ``training_examples`` and have become others."""
    columns = ", ".join(sql.COLUMNS)
    with warehouse().begin() as connection:
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {_quoted(update)}"))
        connection.execute(
            sa.text(
                f"CREATE TABLE {_quoted(update)} AS SELECT {columns} FROM {_quoted(changes)} "
                "WHERE kind <> 'new' AND unchanged = 0"
            )
        )


def insert_new(changes: str) -> None:
    """Adds the new texts of ``changes`` to ``training_examples``; repeated, it changes nothing.

    A merge would look each one up before it writes it, which takes twice as long.
    """
    columns = ", ".join(sql.COLUMNS)
    insert = (
        f"INSERT INTO training_examples ({columns}) SELECT {columns} FROM {_quoted(changes)} AS new "
        "WHERE kind = 'new' AND NOT EXISTS "
        "(SELECT 1 FROM training_examples AS old WHERE old.text_hash = new.text_hash)"
    )
    drop = f"ALTER TABLE training_examples DROP CONSTRAINT {EXAMPLES_KEY}"
    make = f"ALTER TABLE training_examples ADD CONSTRAINT {EXAMPLES_KEY} PRIMARY KEY (text_hash)"
    with warehouse().begin() as connection, _indexed_after(connection, EXAMPLES, drop, make):
        connection.execute(sa.text(insert))


def _quoted(name: str) -> str:
    return f'"{name}"'


def changes_of(changes: str, sightings: list[Any] | None = None) -> dict[str, Any]:
    """How many of a run's texts are new, have another label, or are as they were; and the contradicted ones.

    ``sightings`` are those of the contradicted texts, by time, where the warehouse has none.
    """
    table = sa.table(changes, *map(sa.column, ("kind", "contradicted", "text", "label", "text_hash")))
    with warehouse().connect() as connection:
        counts = dict(connection.execute(sa.select(table.c.kind, sa.func.count()).group_by(table.c.kind)).fetchall())
        wanted = table.c.contradicted == 1
        number = connection.execute(sa.select(sa.func.count()).where(wanted)).scalar_one()
        some = connection.execute(sa.select(table).where(wanted).order_by(table.c.text).limit(SHOWN)).mappings().all()
        if sightings is None:
            wanted = SIGHTINGS.c.text_hash.in_([row["text_hash"] for row in some])
            said = sa.select(*(SIGHTINGS.c[name] for name in ("text_hash", "label", "source", "seen_at")))
            sightings = list(connection.execute(said.where(wanted).order_by(SIGHTINGS.c.seen_at)).mappings())
    shown = [
        {
            "text": row["text"],
            "label": row["label"],
            "given": [
                f"{one['label']} ({one['source']}, {one['seen_at'][:10]})"
                for one in sightings
                if one["text_hash"] == row["text_hash"]
            ],
        }
        for row in some
    ]
    names = ("new", "changed", "known")
    return {**{name: counts.get(name, 0) for name in names}, "contradicted": number, "contradictions": shown}


def prepare_export(name: str) -> int:
    """Makes a table of the rows that are new or have another label since they were last exported; returns how many."""
    with warehouse().begin() as connection:
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
    with warehouse().begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE training_examples SET exported_version = sent.label_version "
                f'FROM "{name}" AS sent WHERE sent.text_hash = training_examples.text_hash '
                "AND training_examples.exported_version < sent.label_version"
            )
        )


def has_table(name: str) -> bool:
    """Whether the warehouse has a table of this name."""
    return bool(sa.inspect(warehouse()).has_table(name))


def need_table(name: str) -> None:
    """Raises AirflowFailException if a run's table is gone, as it is once its report has been written."""
    if not has_table(name):
        raise AirflowFailException("the run's tables in the warehouse are gone: clear it from load_raw on")


def drop(dag_id: str, run_id: str) -> None:
    """Drops a run's tables."""
    for kind in KINDS:
        sa.Table(table_name(kind, dag_id, run_id), sa.MetaData()).drop(warehouse(), checkfirst=True)
