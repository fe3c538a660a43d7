"""Accepted rows on their way from ``validate_data`` to ``preprocess_data``: a table of the run's own, and its hash.

The table lasts as long as the run. A task that is cleared later finds it again, made from the run's own Parquet file;
what it then reads is compared with what was accepted, so no run ever works on another's rows.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from airflow.exceptions import AirflowFailException
from airflow.models import DagRun
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.utils.session import create_session
from airflow.utils.state import State

from include import lake
from include.orchestration.defaults import WAREHOUSE

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "accepted_rows"
ROWS_AT_ONCE = 100_000
HASH_KEYS = ("accepted rows 0!", "accepted rows 1!")  # pandas wants 16 bytes


def table_name(run_id: str) -> str:
    """A run's table; PostgreSQL cuts names at 63 characters, and run ids are longer."""
    return f"{PREFIX}_{hashlib.sha256(run_id.encode()).hexdigest()[:20]}"


def fingerprint(frames: Iterable["pd.DataFrame"]) -> str:
    """A hash of rows, in whatever order and parts they come."""
    import pandas as pd

    sums, rows = [0, 0], 0
    for frame in frames:
        columns = sorted(frame.columns)
        printable = frame[columns].fillna("").astype(str)
        rows += len(frame)
        for at, key in enumerate(HASH_KEYS):
            hashes = pd.util.hash_pandas_object(printable, index=False, hash_key=key)
            sums[at] = (sums[at] + int(hashes.to_numpy("uint64").sum())) % 2**64
    return f"{rows}-{sums[0]:016x}{sums[1]:016x}"


def file_fingerprint(uri: str) -> str:
    """The hash of a Parquet file's rows, read in parts."""
    return fingerprint(_parts(uri))


def check(rows: "pd.DataFrame", accepted: str, run_id: str) -> None:
    """Raises AirflowFailException if these are not the rows that the run has accepted."""
    found = fingerprint([rows])
    if found != accepted:
        raise AirflowFailException(
            f"the table {table_name(run_id)} does not hold the rows that validate_data accepted in this run "
            f"({found.split('-')[0]} rows, accepted were {accepted.split('-')[0]}): clear load_rows and what follows it"
        )


def restore(context: Any) -> None:
    """Makes a run's table anew if it was dropped: what ``preprocess_data`` does first, for it may have been cleared."""
    run_id = context["run_id"]
    engine = PostgresHook(WAREHOUSE).get_sqlalchemy_engine()
    if sa.inspect(engine).has_table(table_name(run_id)):
        return
    accepted = context["ti"].xcom_pull(task_ids="validate_data")
    with engine.begin() as connection:
        for number, part in enumerate(_parts(accepted["accepted_uri"])):
            part.to_sql(table_name(run_id), connection, index=False, if_exists="append" if number else "replace")


def drop(run_id: str) -> None:
    """Drops a run's table; nothing happens if there is none."""
    _drop(PostgresHook(WAREHOUSE).get_sqlalchemy_engine(), table_name(run_id))


def drop_of_ended_runs() -> int:
    """Drops the tables of runs that are over; returns how many."""
    engine = PostgresHook(WAREHOUSE).get_sqlalchemy_engine()
    # Before the runs: a table that is made meanwhile is not in the list.
    tables = [name for name in sa.inspect(engine).get_table_names() if name.startswith(PREFIX)]
    with create_session() as session:
        running = [
            run_id for (run_id,) in session.query(DagRun.run_id).filter(DagRun.state.in_(State.unfinished_dr_states))
        ]
    # Older versions had one table for all runs.
    keep = {table_name(run_id) for run_id in running} | ({PREFIX} if running else set())
    dropped = [name for name in tables if name not in keep]
    for name in dropped:
        _drop(engine, name)
    return len(dropped)


def _drop(engine: Any, name: str) -> None:
    sa.Table(name, sa.MetaData()).drop(engine, checkfirst=True)


def _parts(uri: str) -> Iterator["pd.DataFrame"]:
    import pyarrow.parquet as pq

    with lake.filesystem(uri).open(uri, "rb") as content:
        file = pq.ParquetFile(content)
        if file.metadata.num_rows == 0:
            yield file.read().to_pandas()
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield batch.to_pandas()
