"""Rollbacks and what they do to uploads, and what is finished that was cut off: real MLflow and PostgreSQL."""

import hashlib
import io
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
import sqlalchemy as sa
from airflow.exceptions import AirflowException
from sqlalchemy.engine import Engine

from include import lake, objects
from include.orchestration import batches, notes, promotion_steps, reconciling, rollback, settling
from include.registry import ledger, models
from include.registry.models import CHAMPION, PREVIOUS
from include.registry.promotion import ChampionChanged, PromotionRefused, VersionUnusable, promote
from include.registry.smoke import SmokeTestFailed
from include.uploads import claims, lifecycle, open_batches
from include.uploads.lifecycle import State, Who
from include.uploads.records import Batch
from include.uploads.rounds import Pipeline
from tests.unit.registry_services import Registry, as_connection

pytest_plugins = ["tests.unit.registry_services"]
pytestmark = pytest.mark.usefixtures("services")

OVER = Pipeline(hears=False, will_come=False, busy=False, is_over=lambda run_id: True)


@pytest.fixture(autouse=True)
def warehouse(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's connection to it."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))


def freeze(registry: Registry) -> None:
    """A golden set as the first version of this project wrote it."""
    rows = pd.DataFrame({"text": ["where is my card", "a refund", "my card"], "label": ["card", "refund", "card"]})
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    uri = objects.write_bytes(lake.golden(registry.name, f"{digest[:16]}.parquet"), buffer.getvalue())
    lock = {"uri": uri, "sha256": digest, "rows": len(rows), "labels": ["card", "refund"]}
    objects.write_json(lake.golden(registry.name, "golden.json"), lock)


def take(run_id: str) -> str:
    """A batch that a run has taken."""
    batch_id = f"b-{uuid4().hex[:8]}"
    open_batches.mark(batch_id)
    batch = Batch(batch_id=batch_id, files=[])
    objects.create_bytes(lake.claims(batch_id, "manifest.json"), batch.model_dump_json().encode())
    assert claims.take(batch_id, run_id)
    return batch_id


def conclude(batch_id: str, run_id: str) -> None:
    """The run's end: its batch is used, and its report names it."""
    assert lifecycle.move(batch_id, State.USED, Who.RUN)
    open_batches.close(batch_id)
    objects.write_json(lake.report(batches.PIPELINE, run_id, "run.json"), {"batches": [batch_id]})


def promote_by(registry: Registry, *, concluded: bool = True) -> tuple[str, str, str]:
    """A run that takes a batch and promotes what it made of it; its version, its id and its batch."""
    last = ledger.last_move(registry.engine, registry.name)
    run_id, dataset, job_id = f"run {uuid4().hex[:8]}", uuid4().hex[:8], uuid4().hex[:16]
    batch_id = take(run_id)
    objects.write_json(lake.dataset(dataset, "manifest.json"), {"parent_dataset_id": last.dataset_id if last else None})
    rows = pd.DataFrame({"text": [f"text of {run_id}"], "label": ["card"], "source": ["f.csv"], "extra": [""]})
    for split in ("train", "validation"):
        buffer = io.BytesIO()
        rows.to_parquet(buffer, index=False)
        objects.write_bytes(lake.dataset(dataset, f"{split}.parquet"), buffer.getvalue())
    version = registry.train(job_id, dataset)
    decision = registry.decision(version, last.version if last else None, run=run_id)
    promote(decision.model_copy(update={"dataset_id": dataset, "job_id": job_id}), registry.engine)
    if concluded:
        conclude(batch_id, run_id)
    return version, run_id, batch_id


def state(batch_id: str) -> str:
    return str(lifecycle.read(batch_id).state)


def roll_back(registry: Registry, **options: Any) -> str:
    return rollback.roll_back(registry.name, actor="test", reason="customers complain", **options)


def test_a_rollback_tells_what_is_given_up_and_sets_the_uploads_aside_that_it_leaves(registry: Registry) -> None:
    freeze(registry)
    (first, _, used), (second, _, left) = promote_by(registry), promote_by(registry)
    told = roll_back(registry, dag_run_id="the run")
    assert f"version {first} is the champion again. It gets " in told
    assert "of 3 golden rows right (" in told
    assert f"version {second} " in told
    assert "Rows that come wrong again: 0; right again: 0" in told
    kept = objects.read_json(lake.report(rollback.DAG_ID, "the run", "given_up.json"))
    assert (kept["rows"], kept["reason"], kept["wrong_again"]) == (3, "customers complain", [])
    assert "All of them" not in told, "there are none"
    assert (state(used), state(left)) == ("used", "set aside")
    index = sa.select(batches.BATCHES.c.state).where(batches.BATCHES.c.batch_id == left)
    with registry.engine.connect() as connection:
        assert connection.execute(index).scalar() == "set aside"
    assert roll_back(registry, dag_run_id="the run").endswith(f"version {first} is the champion again.")
    assert registry.verbs() == ["promote", "promote", "rollback"]


@pytest.mark.parametrize("next_call", ["a rollback", "a run"])
def test_a_rollback_that_was_killed_after_the_alias_moved_is_finished_by_the_next_call(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, next_call: str
) -> None:
    freeze(registry)
    (first, _, _), (_, _, left) = promote_by(registry), promote_by(registry)

    def kill(run_ids: Any, reason: str) -> None:
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as patch:
        patch.setattr(settling, "set_aside", kill)
        with pytest.raises(KeyboardInterrupt):
            roll_back(registry)
    assert state(left) == "used"
    if next_call == "a run":
        assert reconciling.reconcile(registry.name) == []
    else:
        with pytest.raises(VersionUnusable, match="the last rollback has left"):
            roll_back(registry)
    assert state(left) == "set aside"
    assert registry.aliases()[CHAMPION] == first


def test_a_move_by_hand_sets_aside_what_it_leaves_too(registry: Registry) -> None:
    (first, _, _), (second, _, left) = promote_by(registry), promote_by(registry)
    models.point(registry.name, CHAMPION, first)
    assert "by hand" in reconciling.reconcile(registry.name)[0]
    assert state(left) == "set aside"
    models.point(registry.name, CHAMPION, second)
    reconciling.reconcile(registry.name)
    assert state(left) == "used"


def test_who_asked_before_another_rolled_back_does_nothing(registry: Registry) -> None:
    freeze(registry)
    (first, _, _), (second, _, _) = promote_by(registry), promote_by(registry)
    asked_at = datetime.now(UTC)
    assert "is the champion again" in roll_back(registry, asked_at=asked_at, dag_run_id="watcher 1")
    told = roll_back(registry, asked_at=asked_at, dag_run_id="watcher 2")
    assert told.startswith(f"nothing to do: {registry.name}: version {second} is not the champion any more")
    assert roll_back(registry, replaces=second, to_version=second).startswith("nothing to do")
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}


def test_a_rollback_is_hindered_by_a_broken_target_but_not_by_force(registry: Registry) -> None:
    freeze(registry)
    first, _, _ = promote_by(registry)
    promote_by(registry)
    objects.write_bytes(lake.model(registry.name, first, "config.json"), b"{}")
    with pytest.raises(SmokeTestFailed, match="cannot be scored"):
        roll_back(registry)
    assert "It was forced" in roll_back(registry, force=True)
    entered = ledger.last_move(registry.engine, registry.name)
    assert entered is not None
    assert (entered.verb, entered.reason, entered.facts["forced"]) == ("rollback", "customers complain", True)


def test_a_golden_set_that_is_gone_or_was_changed_keeps_no_bad_champion(registry: Registry) -> None:
    with pytest.raises(PromotionRefused, match="has no golden set: nothing was ever promoted"):
        roll_back(registry)
    versions = [promote_by(registry)[0] for _ in range(3)]
    assert "what is given up is not known: the golden set is gone" in roll_back(registry)
    freeze(registry)
    lock = objects.read_json(lake.golden(registry.name, "golden.json"))
    objects.write_bytes(lock["uri"], b"changed")
    assert "is not known: " in roll_back(registry, to_version=versions[0])


def test_a_run_that_died_between_promotion_and_its_batches_end_has_used_them(registry: Registry) -> None:
    _, _, promoted = promote_by(registry, concluded=False)
    not_promoted = take(f"run {uuid4().hex[:8]}")
    reconciling.release_abandoned(OVER)
    assert (state(promoted), state(not_promoted)) == ("used", "released")
    assert promoted not in open_batches.ids()


def test_a_run_that_died_so_and_whose_version_was_left_since_has_its_batches_set_aside(registry: Registry) -> None:
    promote_by(registry)
    _, _, left = promote_by(registry, concluded=False)
    registry.rollback()
    reconciling.release_abandoned(OVER)
    assert state(left) == "set aside"


def test_a_task_that_waited_for_mlflow_in_vain_says_so(mlflow_uri: str) -> None:
    from mlflow.exceptions import MlflowException

    gone = MlflowException("API request to http://… failed with exception …: Max retries exceeded with url: …")
    assert notes.told(gone).startswith(f"MLflow at {mlflow_uri} does not answer: start it, or correct")
    assert notes.told(MlflowException("No such run")) == "MlflowException: No such run"
    assert notes.told(AirflowException("what is wrong")) == "what is wrong"


def test_a_champion_that_changes_during_each_evaluation_fails_the_task_instead_of_going_on_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def changes(dag_run: Any, evaluated: dict[str, Any]) -> dict[str, Any]:
        asked.append(evaluated)
        raise ChampionChanged("the champion is 7 now")

    monkeypatch.setattr(promotion_steps, "_decide", changes)
    monkeypatch.setattr(
        promotion_steps, "evaluate_challenger", lambda dag_run, uri, anew: {"result_uri": uri, "anew": anew}
    )
    with pytest.raises(Exception, match="has changed during each of 3 evaluations"):
        promotion_steps.decide_on_challenger(None, {"result_uri": "r"})
    assert asked == [{"result_uri": "r"}, *[{"result_uri": "r", "anew": True}] * 2]
