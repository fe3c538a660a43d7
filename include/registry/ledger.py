"""The table ``promotion_ledger``: every promotion, rejection and rollback, in order, never changed afterwards.

PostgreSQL itself refuses UPDATE, DELETE and TRUNCATE on it by a trigger; a table's owner can drop that, so give the
pipeline's role no more than INSERT and SELECT where that matters. The order is that of ``seq``: a gap in it is an entry
that was written twice and counted once.

Besides what the pipeline decides, it has what it finds: ``by_hand``, somebody set the alias champion in MLflow, and
``restore``, the champion's version was deleted there and is registered again under another number. And what persons
say: ``await`` is a challenger that waits for one, and the ``promote``, ``reject`` or ``supersede`` after it the end of
that; ``establish`` and ``approve_corrections`` are about golden rows. ``bake`` says that a new champion that had only a
share of the requests has held, and has all of them now. ``drift_decision`` is what follows on a day from the champion's
traffic: ``retrain``, ``label``, ``wait`` or ``nothing``, as its facts say. ``admit_label``, ``merge_label`` and
``withdraw_label`` are what persons say of labels (``label_wishes``).
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.engine import Engine

from include import lake, objects

if TYPE_CHECKING:
    from include.evaluation.evaluate import Evaluation

Verb = Literal[
    "promote", "reject", "rollback", "by_hand", "restore", "correct",
    "await", "supersede", "establish", "approve_corrections", "bake", "drift_decision",
    "admit_label", "merge_label", "withdraw_label",
]  # fmt: skip
TRAINING_DAGS = ("bert_model_training_pipeline", "weekly_etl", "model_retraining_dag", "ml_pipeline_dag")
"""Whose runs take batches, end in a decision, and write how they ended among their reports."""

MOVES: tuple[Verb, ...] = ("promote", "rollback", "by_hand", "restore")
ANCHOR = "anchor"
"""The fact of a move that says which version is the anchor after it."""

LABEL_MAPPING = "label_mapping"
"""The fact of a decision that says which labels were renamed or merged, if any were: old names and new ones."""

LEDGER = sa.Table(
    "promotion_ledger",
    sa.MetaData(),
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("decision_id", sa.Text, nullable=False, unique=True),
    sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("model_name", sa.Text, nullable=False, index=True),
    sa.Column("verb", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("previous_champion", sa.Text),
    sa.Column("gates", JSONB, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("dataset_id", sa.Text, nullable=False),
    sa.Column("golden_hash", sa.Text, nullable=False),
    sa.Column("code_hash", sa.Text, nullable=False),
    sa.Column("dag_run_id", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("facts", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
)

TRIGGER = """
CREATE OR REPLACE FUNCTION promotion_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'promotion_ledger is append-only: % is refused', TG_OP;
END $$;
CREATE TRIGGER promotion_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotion_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION promotion_ledger_refuse();
"""
IN_PLACE = (
    "SELECT 1 FROM pg_trigger "
    "WHERE tgname = 'promotion_ledger_append_only' AND tgrelid = to_regclass('promotion_ledger')"
)
HAS_FACTS = (
    "SELECT 1 FROM pg_attribute "
    "WHERE attrelid = to_regclass('promotion_ledger') AND attname = 'facts' AND NOT attisdropped"
)
ADD_FACTS = "ALTER TABLE promotion_ledger ADD COLUMN facts JSONB NOT NULL DEFAULT '{}'"


class LedgerOutdated(RuntimeError):
    """The table was made by an older version, and the pipeline's role may not change it."""


class Entry(BaseModel):
    """One decision. ``previous_champion`` is the champion's version it was made against, None if there was none.

    ``facts`` is what else there is to know of it; of a move always ``anchor``, the version that is the anchor after it.
    """

    model_config = ConfigDict(frozen=True)

    model_name: str
    verb: Verb
    version: str
    previous_champion: str | None
    gates: list[dict[str, Any]] = []
    actor: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    dataset_id: str = ""
    golden_hash: str = ""
    code_hash: str = ""
    dag_run_id: str = Field(min_length=1, description="or any id of the request that is the same when it is repeated")
    job_id: str = ""
    facts: dict[str, Any] = {}
    decided_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def decision_id(self) -> str:
        """16 hex digits: the same when a run repeats a decision, so that it is entered once."""
        facts = [self.model_name, self.dag_run_id, self.verb, self.version, self.previous_champion]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @classmethod
    def of(
        cls, evaluation: "Evaluation", *, version: str, actor: str, code_hash: str, new_anchor: bool = False
    ) -> "Entry":
        """What an evaluation decided about a registered version; run, job, dataset and champion are its context's.

        ``new_anchor``: this version, if it is promoted, is also the anchor from now on.
        """
        context, decision = evaluation.context, evaluation.decision
        return cls(
            model_name=context.model_name,
            verb="promote" if decision.promote else "reject",
            version=version,
            previous_champion=context.champion_version or None,
            gates=[gate.model_dump() for gate in decision.gates],
            actor=actor,
            reason=decision.reason,
            dataset_id=context.dataset_id,
            golden_hash=evaluation.golden_hash,
            code_hash=code_hash,
            dag_run_id=context.dag_run_id,
            job_id=context.job_id,
            facts=({ANCHOR: version} if new_anchor else {})
            | ({LABEL_MAPPING: context.label_mapping} if context.label_mapping else {}),
        )


def append(engine: Engine, entry: Entry) -> bool:
    """Enters a decision, making the table if it is not there; False if the same decision is entered already."""
    ensure(engine)
    row = {**entry.model_dump(), "decision_id": entry.decision_id}
    statement = insert(LEDGER).values(row).on_conflict_do_nothing(index_elements=["decision_id"])
    with engine.begin() as connection:
        return bool(connection.execute(statement).rowcount)


def entries(engine: Engine, model_name: str, *, verbs: Collection[Verb] = (), limit: int = 100) -> list[Entry]:
    """A model's decisions, or those of some verbs, the newest first."""
    condition = LEDGER.c.model_name == model_name
    return _select(engine, condition & LEDGER.c.verb.in_(verbs) if verbs else condition, limit=limit)


def find(engine: Engine, decision_id: str) -> Entry | None:
    """One decision; None if it is not entered."""
    return next(iter(_select(engine, LEDGER.c.decision_id == decision_id, limit=1)), None)


def last_move(
    engine: Engine,
    model_name: str,
    *,
    dag_run_id: str = "",
    verb: Verb | None = None,
    before: datetime | None = None,
) -> Entry | None:
    """The newest decision that moves the champion alias; of one run, one verb, or a past moment, if that is asked."""
    condition = (LEDGER.c.model_name == model_name) & LEDGER.c.verb.in_([verb] if verb else MOVES)
    if dag_run_id:
        condition &= LEDGER.c.dag_run_id == dag_run_id
    if before:
        condition &= LEDGER.c.decided_at <= before
    return next(iter(_select(engine, condition, limit=1)), None)


def champions(engine: Engine, model_name: str) -> list[str]:
    """The versions that were the champion, each once, the newest first."""
    condition = (LEDGER.c.model_name == model_name) & LEDGER.c.verb.in_(MOVES)
    return list(dict.fromkeys(entry.version for entry in _select(engine, condition, limit=10_000)))


def of_run(engine: Engine, dag_run_id: str, verb: Verb) -> Entry | None:
    """A run's entry of one verb, as that by which it promoted its challenger; None if there is none."""
    condition = (LEDGER.c.verb == verb) & (LEDGER.c.dag_run_id == dag_run_id)
    return next(iter(_select(engine, condition, limit=1)), None)


def left_by(dag_run_id: str, name: str) -> str:
    """Where a file lies that a training run left among its reports, whichever DAG's it was; empty if there is none."""
    uris = (lake.report(dag_id, dag_run_id, name) for dag_id in TRAINING_DAGS)
    return next(filter(objects.exists, uris), "")


def moves_to(engine: Engine, model_name: str, version: str) -> list[Entry]:
    """The decisions that made a version the champion, the newest first."""
    condition = (LEDGER.c.model_name == model_name) & LEDGER.c.verb.in_(MOVES) & (LEDGER.c.version == version)
    return _select(engine, condition, limit=100)


def judged(engine: Engine, model_name: str, version: str) -> Entry | None:
    """How a version that was never promoted was last judged beside a champion; None if it was not."""
    condition = (LEDGER.c.model_name == model_name) & LEDGER.c.verb.in_(("reject", "await"))
    return next(iter(_select(engine, condition & (LEDGER.c.version == version), limit=1)), None)


def promotions(engine: Engine, model_name: str, dataset_ids: Collection[str]) -> list[Entry]:
    """How versions trained on one of these datasets came to be, one decision per run, the newest first.

    Each was promoted, or was waiting for a person when a rollback or somebody's hand made it the champion.
    """
    condition = (LEDGER.c.model_name == model_name) & LEDGER.c.verb.in_(("promote", "await"))
    found = _select(engine, condition & LEDGER.c.dataset_id.in_(dataset_ids), limit=10_000) if dataset_ids else []
    return list({entry.dag_run_id: entry for entry in reversed(found)}.values())[::-1]


def datasets(engine: Engine) -> set[str]:
    """All datasets that a move of the champion names."""
    ensure(engine)
    with engine.connect() as connection:
        found = connection.execute(sa.select(LEDGER.c.dataset_id).where(LEDGER.c.verb.in_(MOVES)).distinct())
        return {row[0] for row in found if row[0]}


def ensure(engine: Engine) -> None:
    """Makes the table and its trigger unless both are there, and adds to an older one what it lacks.

    Two at once do not collide. Raises LedgerOutdated if the role may not add to the table.
    """
    try:
        with exclusive(engine, LEDGER.name) as connection:
            if connection.execute(sa.text(IN_PLACE)).first() is None:
                LEDGER.create(connection, checkfirst=True)
                connection.execute(sa.text(TRIGGER))
            if connection.execute(sa.text(HAS_FACTS)).first() is None:
                connection.execute(sa.text(ADD_FACTS))
    except sa.exc.ProgrammingError as error:
        if "must be owner" not in str(error):
            raise
        raise LedgerOutdated(
            f"promotion_ledger was made by an older version, and this role may not change it. As its owner run: "
            f"{ADD_FACTS}"
        ) from error


@contextmanager
def exclusive(engine: Engine, name: str) -> Iterator[Any]:
    """One caller at a time in the whole warehouse for this name; gives the connection whose transaction holds it.

    A lock of a transaction, not of a session, so that it also holds behind a connection pooler.
    """
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_key(name))))
        yield connection


def _lock_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"promotion:{name}".encode()).digest()[:8], signed=True)


def _select(engine: Engine, condition: Any, *, limit: int) -> list[Entry]:
    ensure(engine)
    statement = sa.select(LEDGER).where(condition).order_by(LEDGER.c.seq.desc()).limit(limit)
    with engine.connect() as connection:
        return [Entry.model_validate(dict(cast(Any, row)._mapping)) for row in connection.execute(statement)]
