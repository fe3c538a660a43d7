"""Rows of databases and APIs, through Airflow's connections: those that are newer than the newest so far."""
# Only imported inside tasks.

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from airflow.hooks.base import BaseHook

from include.ingestion import pages
from include.ingestion.sources import Mongo, Rest, Sql
from include.orchestration.file_hosts import base_url, connection, session

ROWS_AT_ONCE = 10_000


def rows(source: Sql | Rest | Mongo, after: Any, until: datetime) -> Iterator[Mapping[str, Any]]:
    """The rows whose cursor is greater than ``after`` and, if it is a time, before ``until``; all, without a cursor."""
    found = {"sql": _sql, "rest": _rest, "mongo": _mongo}[source.kind](source, after, until)  # type: ignore[operator]
    for row in found:
        if source.cursor and not _is_before(row.get(source.cursor), until):
            continue
        yield row


def _is_before(value: Any, until: datetime) -> bool:
    """Whether a cursor's value belongs to the time before ``until``: so that a week done later has the same rows."""
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value < (until if value.tzinfo else until.replace(tzinfo=None))
    return not isinstance(value, date) or value < until.date()


def where(source: Sql | Rest | Mongo) -> str:
    """Where rows come from, without credentials."""
    conn = connection(source.connection)
    if source.kind == "rest":
        return f"{base_url(conn)}/{source.path.lstrip('/')}"
    what = f"{source.database}.{source.collection}" if source.kind == "mongo" else source.table or "query"
    return f"{conn.conn_type}://{conn.host}/{conn.schema or ''} {what}"


def _sql(source: Sql, after: Any, until: datetime) -> Iterator[Mapping[str, Any]]:
    """Through the hook's SQLAlchemy engine, whatever database it is; the server keeps the rows until they are asked
    for."""
    engine = BaseHook.get_hook(source.connection).get_sqlalchemy_engine()
    if source.table:
        schema, _, name = source.table.rpartition(".")
        wanted: Any = sa.select("*").select_from(sa.table(name, schema=schema or None))
    else:
        query = source.query.strip().rstrip(";").replace(":", r"\:")  # no word of it is a parameter
        wanted = sa.select("*").select_from(sa.text(f"({query}\n) AS source_rows"))  # its last line may be a comment
    if source.cursor:
        cursor: Any = sa.column(source.cursor)
        wanted = wanted.order_by(cursor)
        if after is not None:
            wanted = wanted.where(cursor > after)
    with engine.connect().execution_options(stream_results=True, max_row_buffer=ROWS_AT_ONCE) as conn:
        yield from (dict(row) for row in conn.execute(wanted).mappings())


def _rest(source: Rest, after: Any, until: datetime) -> Iterator[Mapping[str, Any]]:
    params = dict(source.params)
    if source.cursor and after is not None:
        params[source.since] = str(after)
    url = f"{base_url(connection(source.connection))}/{source.path.lstrip('/')}"
    found = pages.records(
        session(source), url, params=params, records=source.records, paging=source.paging
    )  # fmt: skip
    # "since" may mean "from" to whoever wrote the API.
    return (row for row in found if not source.cursor or after is None or row.get(source.cursor) != after)


def _mongo(source: Mongo, after: Any, until: datetime) -> Iterator[Mapping[str, Any]]:
    from airflow.providers.mongo.hooks.mongo import MongoHook

    with MongoHook(source.connection) as hook:
        collection = hook.get_collection(source.collection, source.database)
        wanted = dict(source.filter)
        if source.cursor and after is not None:
            wanted = {"$and": [wanted, {source.cursor: {"$gt": after}}]} if wanted else {source.cursor: {"$gt": after}}
        found = collection.find(wanted, batch_size=ROWS_AT_ONCE)
        yield from found.sort(source.cursor, 1) if source.cursor else found
