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
OF_LABELS = ("admit_label", "merge_label", "withdraw_label")
JUDGED = ("promote", "reject", "await")
"""What ends the run that made a version: it has left what that answered."""

MOST_VERSIONS = 200
UNDEFINED_TABLE = "42P01"  # PostgreSQL's code


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
        right, rows = self.facts.get("right"), self.facts.get("golden_rows")
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
    names: list[str] | None = None  # of its first files; None: entered by an older release


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The warehouse's, one for this process."""
    # Without transactions, each of which would be begun and ended over the network for one statement that reads.
    options = {
        "pool_pre_ping": True, "pool_size": 2, "isolation_level": "AUTOCOMMIT", "connect_args": {"connect_timeout": 5},
    }  # fmt: skip
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


def made(model_name: str, version: str) -> Decision | None:
    """The decision about a version by the run that made it; None if there is no such version.

    A version that was registered again is the one whose files it has.
    """
    found = _decisions(
        "WHERE model_name = :model AND version = :version AND verb = ANY(:verbs) ORDER BY seq LIMIT 1",
        {"model": model_name, "version": version, "verbs": [*JUDGED, "restore"]},
    )
    if found and found[0].verb == "restore" and found[0].previous_champion not in (None, version):
        return made(model_name, str(found[0].previous_champion))
    return found[0] if found else None


def decisions_of(model_name: str, run_ids: Sequence[str]) -> dict[str, Decision]:
    """What was first decided about the version of each run, by the run; a run that made none has none."""
    found = _decisions(
        "WHERE model_name = :model AND dag_run_id = ANY(:runs) AND verb = ANY(:verbs) ORDER BY seq DESC",
        {"model": model_name, "runs": list(run_ids), "verbs": list(JUDGED)},
    )
    return {one.dag_run_id: one for one in found}


def versions(model_name: str, limit: int = MOST_VERSIONS) -> list[Decision]:
    """The newest versions, each with the first that was decided about it."""
    return _decisions(
        "JOIN (SELECT min(seq) AS first FROM promotion_ledger WHERE model_name = :model AND version <> '' "
        "AND verb = ANY(:verbs) GROUP BY version ORDER BY first DESC LIMIT :limit) firsts ON firsts.first = entry.seq "
        "ORDER BY seq DESC",
        {"model": model_name, "verbs": [*JUDGED, "restore"], "limit": limit},
        columns="entry.*",
    )


def label_mapping(model_name: str) -> dict[str, str]:
    """Old names of labels and what they are called now, by the newest decision that tells of any."""
    found = _decisions(
        "WHERE model_name = :model AND verb = 'promote' AND (to_jsonb(entry) -> 'facts') ? 'label_mapping' "
        "ORDER BY seq DESC LIMIT 1",
        {"model": model_name},
    )
    return dict(found[0].facts["label_mapping"]) if found else {}


def former_champions(model_name: str, limit: int = 20) -> list[str]:
    """The versions that were the champion, each once, the newest first; without the one that is."""
    found = _rows(
        "promotion_ledger",
        "WHERE model_name = :model AND verb = ANY(:moves) GROUP BY version ORDER BY newest DESC LIMIT :limit OFFSET 1",
        {"model": model_name, "moves": list(MOVES), "limit": limit},
        columns="version, max(seq) AS newest",
    )
    return [str(one["version"]) for one in found]


def waits(model_name: str) -> list[Decision]:
    """The challengers that wait for a person, the first first."""
    return _decisions(
        "WHERE model_name = :model AND verb = 'await' AND NOT EXISTS (SELECT 1 FROM promotion_ledger later "
        "WHERE later.model_name = entry.model_name AND later.version = entry.version AND later.seq > entry.seq "
        "AND later.verb = ANY(:ends)) ORDER BY seq",
        {"model": model_name, "ends": list(ENDS_OF_A_WAIT)},
    )


def uploads(*, state: str = "", page: int = 1, size: int = 20) -> tuple[list[Upload], bool]:
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
    found = _all("SELECT state, count(*) FROM upload_batches GROUP BY state ORDER BY state")
    return {row[0]: row[1] for row in found}


def upload(batch_id: str) -> Upload | None:
    """One batch of the table ``upload_batches``; None if it has none of this id."""
    rows = _rows("upload_batches", "WHERE batch_id = :batch_id", {"batch_id": batch_id})
    return Upload.model_validate(rows[0]) if rows else None


def watched(model_name: str, days: int = 60) -> list[dict[str, Any]]:
    """Each check of the last days: ``points``, JSON of its days and values, and the ``last`` of them whole."""
    return _rows(
        "monitoring_results",
        'WHERE model = :model AND day > current_date - CAST(:days AS integer) GROUP BY "check" ORDER BY "check"',
        {"model": model_name, "days": days},
        columns='"check" AS name, jsonb_agg(jsonb_build_array(day, value) ORDER BY day)::text AS points, '
        "max(day) AS day, (jsonb_agg(to_jsonb(entry) ORDER BY day DESC) -> 0) AS last",
    )


def alarms(model_name: str, days: int = 60, limit: int = 50) -> list[dict[str, Any]]:
    """The checks of the last days that failed, the newest first."""
    return _rows(
        "monitoring_results",
        "WHERE model = :model AND day > current_date - CAST(:days AS integer) AND verdict = 'failed' "
        'ORDER BY day DESC, "check" LIMIT :limit',
        {"model": model_name, "days": days, "limit": limit},
    )


def said_of_labels(model_name: str, limit: int = 20) -> list[Decision]:
    """What persons have said of labels, the newest first."""
    return _decisions(
        "WHERE model_name = :model AND verb = ANY(:verbs) ORDER BY seq DESC LIMIT :limit",
        {"model": model_name, "verbs": list(OF_LABELS), "limit": limit},
    )


def accuracies(model_name: str, since: datetime) -> dict[str, dict[str, Any]]:
    """The newest of the checks ``accuracy.…`` that are about a champion since a moment, by what is behind the stop."""
    rows = _rows(
        "monitoring_results",
        "WHERE model = :model AND day >= CAST(:since AS date) AND \"check\" LIKE 'accuracy.%' "
        "AND day = (SELECT max(day) FROM monitoring_results newest WHERE newest.model = :model "
        "AND newest.\"check\" = 'accuracy.live')",
        {"model": model_name, "since": since},
    )
    return {str(row["check"]).removeprefix("accuracy."): row for row in rows}


def drift_decisions(model_name: str, limit: int = 10) -> list[Decision]:
    """The decisions whether to train again, the newest first."""
    return _decisions(
        "WHERE model_name = :model AND verb = 'drift_decision' ORDER BY seq DESC LIMIT :limit",
        {"model": model_name, "limit": limit},
    )


def retrainings(model_name: str, since: datetime) -> list[Decision]:
    """The decisions since a moment by which a drift has used up some of the month's retrainings, the newest first."""
    return _decisions(
        "WHERE model_name = :model AND verb = 'drift_decision' AND decided_at > :since "
        "AND to_jsonb(entry) -> 'facts' ->> 'decision' = 'retrain' ORDER BY seq DESC",
        {"model": model_name, "since": since},
    )


def _decisions(rest: str, values: dict[str, Any], columns: str = "*") -> list[Decision]:
    return [Decision.model_validate(row) for row in _rows("promotion_ledger", rest, values, columns)]


def _rows(table: str, rest: str, values: dict[str, Any], columns: str = "*") -> list[dict[str, Any]]:
    """Rows of one of our tables as JSON; none if there is no such table."""
    statement = f"SELECT to_jsonb(entry) FROM (SELECT {columns} FROM {table} entry {rest}) entry"
    return [row[0] for row in _all(statement, values)]


def _all(statement: str, values: dict[str, Any] | None = None) -> Sequence[Any]:
    """What a statement finds; nothing if its table is not there yet."""
    with engine().connect() as connection:
        try:
            found: Sequence[Any] = connection.execute(sa.text(statement), values or {}).all()
        except sa.exc.ProgrammingError as error:
            if error.orig.pgcode != UNDEFINED_TABLE:
                raise
            return []
        return found
