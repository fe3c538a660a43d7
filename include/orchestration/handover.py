"""Accepted rows on their way from ``validate_data`` to ``preprocess_data``: a table of the run's own, and its hash.

The table lasts as long as the run. A task that is cleared later finds it again, made from the run's own Parquet file;
what it then reads is compared with what was accepted, so no run ever works on another's rows.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from airflow.exceptions import AirflowFailException
from airflow.models import DagRun
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.utils.session import create_session
from airflow.utils.state import State
from astro.sql.operators.load_file import LoadFileOperator

from include import objects
from include.orchestration import curating
from include.orchestration.defaults import WAREHOUSE
from include.orchestration.warehouse import warehouse

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "accepted_rows"
ROWS_AT_ONCE = 20_000  # each may have BERT_MAX_TEXT_CHARACTERS


def table_name(run_id: str) -> str:
    """A run's table; PostgreSQL cuts names at 63 characters, and run ids are longer."""
    return f"{PREFIX}_{hashlib.sha256(run_id.encode()).hexdigest()[:20]}"


def check(rows: "pd.DataFrame", accepted: str, run_id: str) -> None:
    """Raises AirflowFailException if these are not the rows that the run has accepted: columns text and label."""
    from include.datasets.checks import rows_hash, text_keys

    found = rows_hash(text_keys(rows["text"]), rows["label"].value_counts().to_dict())
    if found != accepted:
        raise AirflowFailException(
            f"the table {table_name(run_id)} does not hold the rows that validate_data accepted in this run "
            f"({found.split('-')[0]} rows, accepted were {accepted.split('-')[0]}): clear load_rows and what follows it"
        )


class LoadRows(LoadFileOperator):
    """The Astro SDK's ``load_file`` for accepted rows, in parts, and with every cell in quotes.

    The SDK's own COPY holds a file as a frame and as CSV, and leaves quotes away where pandas does; then PostgreSQL
    refuses a text with a carriage return. Of the file's columns only some are loaded, if they are named.
    """

    def __init__(self, *, columns: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = columns

    def load_data_to_table(self, input_file: Any, context: Any) -> Any:
        """Fills the table with the file's rows, replacing what was there; returns the table."""
        load(self.output_table.name, input_file.path, self.columns)
        return self.output_table


def restore(context: Any) -> None:
    """Makes a run's table anew if it was dropped: what ``preprocess_data`` does first, for it may have been cleared."""
    name = table_name(context["run_id"])
    engine = warehouse()
    if not sa.inspect(engine).has_table(name):
        load(name, context["ti"].xcom_pull(task_ids="validate_data")["accepted_uri"])


def drop(run_id: str) -> None:
    """Drops a run's table; nothing happens if there is none."""
    _drop(warehouse(), table_name(run_id))


def drop_of_ended_runs() -> int:
    """Drops the tables of runs that are over; returns how many."""
    engine = warehouse()
    # Before the runs: a table that is made meanwhile is not in the list.
    tables = [name for name in sa.inspect(engine).get_table_names() if name.startswith((PREFIX, curating.ETL_PREFIX))]
    with create_session() as session:
        running = session.query(DagRun.dag_id, DagRun.run_id).filter(DagRun.state.in_(State.unfinished_dr_states)).all()
    # Older versions had one table for all runs.
    keep = {table_name(run_id) for _, run_id in running} | ({PREFIX} if running else set())
    keep |= {curating.table_name(kind, *run) for run in running for kind in curating.KINDS}
    dropped = [name for name in tables if name not in keep]
    for name in dropped:
        _drop(engine, name)
    return len(dropped)


def _drop(engine: Any, name: str) -> None:
    sa.Table(name, sa.MetaData()).drop(engine, checkfirst=True)


def load(name: str, uri: str, columns: Sequence[str] = ()) -> int:
    """Makes a table of a Parquet file's rows, all columns text, in one transaction; returns how many.

    With ``columns``, of those only.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.orchestration import copying

    connection = PostgresHook(WAREHOUSE).get_conn()
    try:
        with tempfile.TemporaryDirectory() as folder, connection.cursor() as cursor:
            file = pq.ParquetFile(objects.download_file(uri, Path(folder) / "rows.parquet"))
            schema = pa.schema([(column, pa.string()) for column in columns or file.schema_arrow.names])
            parts = file.iter_batches(ROWS_AT_ONCE, columns=schema.names)
            count = copying.make_table(cursor, name, schema, parts, bytewise=True)
        connection.commit()
    finally:
        connection.close()
    return count
