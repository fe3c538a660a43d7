"""The table ``upload_batches``: where every batch stands, for people and dashboards.

    python -m include.orchestration.batches rebuild

It is an index of the objects in ``claims/``, from which ``rebuild`` makes it anew. Nothing decides by it, so a failure
to write it stops nothing.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from include import lake, objects
from include.orchestration.warehouse import warehouse
from include.uploads import lifecycle, open_batches
from include.uploads.lifecycle import ENDS
from include.uploads.open_batches import in_parallel
from include.uploads.records import read_batch

logger = logging.getLogger(__name__)

BATCHES = sa.Table(
    "upload_batches",
    sa.MetaData(),
    sa.Column("batch_id", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("because", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("claimed_at", sa.DateTime(timezone=True)),
    sa.Column("changed_at", sa.DateTime(timezone=True)),
    sa.Column("moves", sa.Integer, nullable=False),
    sa.Column("tells", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("names", sa.ARRAY(sa.Text)),  # of the first files; no older release wrote any
)
NAMES = 3
ROWS_AT_ONCE = 500
PIPELINE = "bert_model_training_pipeline"


def record(batch_ids: Iterable[str]) -> None:
    """Enters where these batches stand now; logs what hinders it."""
    try:
        _write(warehouse(), list(batch_ids))
    except Exception:
        logger.exception(
            "upload_batches could not be kept up; python -m include.orchestration.batches rebuild mends it"
        )


def rebuild() -> int:
    """Makes the table and the marks of open batches anew from the objects in S3; returns the number of batches."""
    engine, batch_ids = warehouse(), sealed_batches()
    in_parallel(_reopen, batch_ids)
    BATCHES.drop(engine, checkfirst=True)
    _write(engine, batch_ids)
    return len(batch_ids)


def reopen_old() -> None:
    """Marks the batches that an older version left open, once in a bucket's life."""
    done = lake.claims("layout", "2.json")
    if not objects.exists(done):
        in_parallel(_reopen, sealed_batches())
        objects.write_json(done, {"marks": lake.open_batch()})


def _reopen(batch_id: str) -> None:
    """Marks a batch that has not ended. An older version wrote no end, but a report of every run that had one."""
    life = lifecycle.read(batch_id)
    ended = life.state in ENDS or (
        life.number == 0 and life.run_id and objects.exists(lake.report(PIPELINE, life.run_id, "run.json"))
    )
    if not ended and not objects.exists(lake.open_batch(batch_id)):
        open_batches.mark(batch_id)


def sealed_batches() -> list[str]:
    """All batches there are, oldest first. Lists all claims: for rebuilding only."""
    claimed = lake.claims()
    parts = [uri.removeprefix(claimed).split("/") for uri in objects.find(claimed)]
    return [batch_id for batch_id, *rest in parts if rest == ["manifest.json"]]


def _write(engine: Any, batch_ids: list[str]) -> None:
    _ensure(engine)
    for start in range(0, len(batch_ids), ROWS_AT_ONCE):
        rows = [row for row in in_parallel(_row, batch_ids[start : start + ROWS_AT_ONCE]) if row]
        if not rows:
            continue
        statement = insert(BATCHES).values(rows)
        newer = {column.name: statement.excluded[column.name] for column in BATCHES.columns if not column.primary_key}
        # Two tasks at once: whoever read later has read more moves.
        condition = BATCHES.c.moves <= statement.excluded.moves
        with engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["batch_id"], set_=newer, where=condition)
            )


def _ensure(engine: Any) -> None:
    """Makes the table, and adds to an older one what it lacks."""
    BATCHES.create(engine, checkfirst=True)
    there = {column["name"] for column in sa.inspect(engine).get_columns(BATCHES.name)}
    if "names" not in there:
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE upload_batches ADD COLUMN IF NOT EXISTS names TEXT[]"))


def _row(batch_id: str) -> dict[str, Any] | None:
    batch = read_batch(batch_id)
    if batch is None:
        return None
    life = lifecycle.read(batch_id)
    return {
        "batch_id": batch_id,
        "state": str(life.state),
        "because": str(life.because),
        "reason": life.reason,
        "run_id": life.run_id,
        "files": len(batch.files),
        "bytes": sum(file.size for file in batch.files),
        "claimed_at": min((file.claimed_at for file in batch.files), default=None),
        "changed_at": life.at if life.number else None,
        "moves": life.number,
        "tells": life.tells,
        "failures": life.failures,
        "names": [file.key.removeprefix("incoming/") for file in batch.files[:NAMES]],
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.batches")
    parser.add_argument("command", choices=["rebuild"], help="make the table upload_batches anew from S3")
    parser.parse_args(arguments)
    print(f"upload_batches: {rebuild()} batches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
