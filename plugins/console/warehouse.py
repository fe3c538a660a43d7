"""What the console reads in the warehouse: the ledger, the table of uploads, what was watched. It writes nothing there.

A table that is not there yet is an empty one. Rows are read as JSON, so that a table of an older or newer release, with
a column less or more, can be shown, too.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from airflow.providers.postgres.hooks.postgres import PostgresHook
from pydantic import BaseModel, ConfigDict
from sqlalchemy.engine import Engine

from include.orchestration.defaults import WAREHOUSE
from include.registry.ledger import MOVES

ENDS_OF_A_WAIT = ("reject", "supersede", *MOVES)
FLOOR = "accuracy_floor"


class Decision(BaseModel):
    """An entry of the ledger, of whatever release."""

    model_config = ConfigDict(frozen=True)

    seq: int
    decision_id: str
    decided_at: datetime
    verb: str
    version: str
    previous_champion: str | None = None
    gates: list[dict[str, Any]] = []
    actor: str = ""
    reason: str = ""
    dataset_id: str = ""
    dag_run_id: str = ""
    job_id: str = ""
    facts: dict[str, Any] = {}

    @property
    def accuracy(self) -> float | None:
        """The version's accuracy on the golden rows, if it was measured for this decision."""
        floor = next((gate for gate in self.gates if gate.get("name") == FLOOR), None)
        if floor is not None:
            return float(floor["value"])
        right, rows = self.facts.get("right"), self.facts.get("rows")
        return right / rows if isinstance(right, int) and isinstance(rows, int) and rows else None


class Upload(BaseModel):
    """A line of the table of uploads: a batch of files, and where it stands."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    state: str
    because: str = ""
    reason: str = ""
    run_id: str = ""
    files: int = 0
    bytes: int = 0
    claimed_at: datetime | None = None
    changed_at: datetime | None = None
    failures: int = 0


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The warehouse's, one for this process."""
    options = {"pool_pre_ping": True, "pool_size": 2, "connect_args": {"connect_timeout": 5}}
    return PostgresHook(WAREHOUSE).get_sqlalchemy_engine(options)


def timeline(model_name: str, *, before: int | None = None, limit: int = 20) -> list[Decision]:
    """A model's decisions, the newest first, of those entered before one if that is said."""
    condition = "model_name = :model" + ("" if before is None else " AND seq < :before")
    values = {"model": model_name, "before": before, "limit": limit}
    return _decisions(f"WHERE {condition} ORDER BY seq DESC LIMIT :limit", values)


def champion(model_name: str) -> Decision | None:
    """The decision by which the champion became it."""
    found = _decisions(
        "WHERE model_name = :model AND verb = ANY(:moves) ORDER BY seq DESC LIMIT 1",
        {"model": model_name, "moves": list(MOVES)},
    )
    return found[0] if found else None


def judged(model_name: str, version: str) -> Decision | None:
    """The newest decision about a version for which it answered the golden rows."""
    found = _decisions(
        "WHERE model_name = :model AND version = :version "
        "AND (gates @> :floor OR (to_jsonb(entry) -> 'facts') ? 'right') "
        "ORDER BY seq DESC LIMIT 1",
        {"model": model_name, "version": version, "floor": f'[{{"name": "{FLOOR}"}}]'},
    )
    return found[0] if found else None


def former_champions(model_name: str, limit: int = 20) -> list[str]:
    """The versions that were the champion, each once, the newest first; without the one that is."""
    found = _decisions(
        "WHERE model_name = :model AND verb = ANY(:moves) ORDER BY seq DESC LIMIT 500",
        {"model": model_name, "moves": list(MOVES)},
    )
    return list(dict.fromkeys(one.version for one in found))[1 : limit + 1]


def waits(model_name: str) -> list[Decision]:
    """The challengers that wait for a person, the first first."""
    return _decisions(
        "WHERE model_name = :model AND verb = 'await' AND NOT EXISTS (SELECT 1 FROM promotion_ledger later "
        "WHERE later.model_name = entry.model_name AND later.version = entry.version AND later.seq > entry.seq "
        "AND later.verb = ANY(:ends)) ORDER BY seq",
        {"model": model_name, "ends": list(ENDS_OF_A_WAIT)},
    )


def uploads(*, state: str = "", page: int = 1, size: int = 25) -> tuple[list[Upload], bool]:
    """A page of batches, those that changed last first, and whether there are more."""
    condition = "WHERE state = :state " if state else ""
    rows = _rows(
        "upload_batches",
        f"{condition}ORDER BY coalesce(changed_at, claimed_at) DESC NULLS LAST, batch_id DESC "
        "LIMIT :limit OFFSET :offset",
        {"state": state, "limit": size + 1, "offset": (page - 1) * size},
    )
    return [Upload.model_validate(row) for row in rows[:size]], len(rows) > size


def counts_of_uploads() -> dict[str, int]:
    """How many batches there are in each state."""
    if not _is_there("upload_batches"):
        return {}
    with engine().connect() as connection:
        found = connection.execute(sa.text("SELECT state, count(*) FROM upload_batches GROUP BY state ORDER BY state"))
        return {row[0]: row[1] for row in found}


def upload(batch_id: str) -> Upload | None:
    """One batch."""
    rows = _rows("upload_batches", "WHERE batch_id = :batch_id", {"batch_id": batch_id})
    return Upload.model_validate(rows[0]) if rows else None


def watched(model_name: str, days: int = 60) -> list[dict[str, Any]]:
    """What was found when the model was watched, the newest day first."""
    return _rows(
        "monitoring_results",
        'WHERE model = :model AND day > current_date - CAST(:days AS integer) ORDER BY day DESC, "check" LIMIT 5000',
        {"model": model_name, "days": days},
    )


def drift_decisions(model_name: str, limit: int = 10) -> list[Decision]:
    """The decisions whether to train again, the newest first."""
    return _decisions(
        "WHERE model_name = :model AND verb = 'drift_decision' ORDER BY seq DESC LIMIT :limit",
        {"model": model_name, "limit": limit},
    )


def _decisions(rest: str, values: dict[str, Any]) -> list[Decision]:
    return [Decision.model_validate(row) for row in _rows("promotion_ledger", rest, values)]


def _rows(table: str, rest: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of one of our tables as JSON; none if there is no such table."""
    if not _is_there(table):
        return []
    statement = sa.text(f"SELECT to_jsonb(entry) FROM (SELECT * FROM {table} entry {rest}) entry")
    with engine().connect() as connection:
        found: Sequence[Any] = connection.execute(statement, values).all()
        return [row[0] for row in found]


def _is_there(table: str) -> bool:
    with engine().connect() as connection:
        return connection.execute(sa.text("SELECT to_regclass(:table)"), {"table": table}).scalar() is not None
