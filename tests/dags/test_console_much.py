"""The console with much behind it: 10,000 uploads, 1,000 versions, a million answers."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from aiobotocore.client import AioBaseClient
from airflow.models import DagRun
from airflow.models.dagrun import DagRunNote
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake, objects
from include.monitoring import results
from include.orchestration import batches
from include.registry import ledger
from include.registry.ledger import Entry
from include.uploads.records import Batch, ClaimedFile
from plugins.console import connect, prepare
from plugins.console.access import PIPELINE, PREVIEW
from tests.dags.console_app import GATES, WORSE, Visitor, answered, worth

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


MANY = ("/console/", "/console/?before=500", "/console/versions/", "/console/versions/1000", "/console/train/",
        "/console/data/", "/console/data/?page=300", "/console/data/?state=used&page=400", "/console/labels/",
        "/console/labels/next/texts", "/console/watch/")  # fmt: skip
"""The pages that are looked at with much behind them."""

GROWS = ("predictions/", "claims/", "drafts/", "reports/")
BY_OLDER_RELEASE = 4_000  # the uploads from here on, whose names are in their manifests alone
MOST_STATEMENTS = 14  # three are Airflow's, by which it knows who asks


def fill(model: str, engine: Engine, folder: Path) -> None:
    """10,000 uploads, 1,000 versions, a million answers, two months of checks."""
    at = datetime.now(UTC) - timedelta(days=100)
    uploads = []
    for number in range(10_000):
        moments = {"claimed_at": at + timedelta(minutes=number), "changed_at": at + timedelta(minutes=number)}
        counts = {"files": 1, "bytes": 2048, "moves": 1, "tells": 1, "failures": 0}
        names = {"batch_id": f"many-{number:05}-{model}", "state": "used", "because": "", "reason": "x", "run_id": "r"}
        uploads.append(names | counts | moments | {"names": ["a file.csv"]})
    for first in (9_980, BY_OLDER_RELEASE, 2_000):  # the pages that are looked at
        for one in uploads[first : first + 20]:
            one["names"] = None if first == BY_OLDER_RELEASE else one["names"]
            file = ClaimedFile(key="incoming/a file.csv", etag="e", size=2048, uri="s3://x", claimed_at=at)
            manifest = Batch(batch_id=one["batch_id"], files=[file]).model_dump_json().encode()
            objects.write_bytes(lake.claims(one["batch_id"], "manifest.json"), manifest)
    entries = [
        Entry(
            model_name=model, verb="promote" if version % 2 else "reject", version=str(version), gates=GATES * 5,
            previous_champion=str(version - 1), actor="test", reason="x" * 500, dag_run_id=f"r{version}",
            dataset_id="d1", decided_at=at,
        )
        for version in range(1, 1_001)
    ] + [
        Entry(
            model_name=model, verb="drift_decision", version="999", previous_champion="999", actor="test", reason="x",
            dag_run_id=f"d{day}", facts={"decision": "nothing", "day": f"{at.date() + timedelta(days=day)}"},
        )
        for day in range(365)
    ]  # fmt: skip
    found = [
        {"day": datetime.now(UTC).date() - timedelta(days=ago), "model": model, "check": f"{subject}.check-{number}",
         "value": number / 80, "threshold": 0.9, "verdict": "passed", "told": "a sentence about it" * 5}
        for ago in range(60) for number in range(20)
        for subject in ("drift", "uploads", "predictions", "training_examples")
    ]  # fmt: skip
    batches.BATCHES.create(engine, checkfirst=True)
    ledger.ensure(engine)
    results.ensure(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(batches.BATCHES), uploads)
        connection.execute(sa.insert(results.RESULTS), found)
        connection.execute(
            sa.insert(ledger.LEDGER), [one.model_dump() | {"decision_id": one.decision_id} for one in entries]
        )
    counts = {f"label {number:03}": 1_000 for number in range(150)}
    objects.write_json(lake.dataset("d1", "manifest.json"), {"rows": {"train": 150_000}, "label_counts": counts})
    for run_id in ("r999", "r1000"):
        answered(run_id, WORSE, folder)
    worth(model, "unsure/2026-11-21.csv", 100)
    answers = pd.DataFrame({"id": range(10_000), "text": "a text", "label": "card", "probability": 0.9}).to_parquet()
    for number in range(100):
        objects.write_bytes(lake.predictions(model, f"date=2026-11-{1 + number % 28:02}/{number}.parquet"), answers)


def begin_runs(model: str) -> None:
    """The newest of many trainings and previews, each with a note."""
    with create_session() as session:
        for number, dag_id in itertools.product(range(100), (PIPELINE, PREVIEW)):
            at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
            run = DagRun(
                dag_id, f"{model}-{number}", execution_date=at, run_type="manual", data_interval=(at, at),
                state="success", conf={"draft_id": "d", "file": "f"},
            )  # fmt: skip
            run.start_date = run.end_date = at
            run.note = "how it ended"
            session.add(run)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """The statements and the requests to the bucket since it was last emptied."""
    found: dict[str, list[str]] = {"statements": [], "requests": []}
    call = AioBaseClient._make_api_call

    async def counted(self: Any, name: str, given: Any) -> Any:
        found["requests"].append(f"{name} {given.get('Prefix', '') or given.get('Key', '')}")
        return await call(self, name, given)

    def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        found["statements"].append(statement)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", counted)
    sa.event.listen(Engine, "before_cursor_execute", executed)
    yield found
    sa.event.remove(Engine, "before_cursor_execute", executed)


def test_pages_cost_no_more_with_much_behind_them(
    site: Any, console: dict[str, Visitor], model: str, engine: Engine, cost: dict[str, list[str]], tmp_path: Path
) -> None:
    """Each asks the bucket and the databases for little, and lists nothing that grows; ``-s`` shows what each takes."""
    prepare(site)
    connect()
    fill(model, engine, tmp_path)
    begin_runs(model)
    try:
        for path, turn in itertools.product(MANY, ("first", "again")):
            for counted in cost.values():
                counted.clear()
            begun, of_cpu = time.perf_counter(), time.thread_time()
            assert console["trainer"].get(path).status_code == 200
            took, of_cpu = 1000 * (time.perf_counter() - begun), 1000 * (time.thread_time() - of_cpu)
            requests, statements = cost["requests"], cost["statements"]
            print(f"{path:36} {turn:6} {took:4.0f} ms, {of_cpu:4.0f} of CPU, {len(statements):2} statements, {len(requests):2} requests")  # noqa: E501 # fmt: skip
            grows = tuple(f"List{kind} {name}" for kind in ("Objects", "ObjectsV2") for name in GROWS)
            assert not [one for one in requests if one.startswith(grows)], path
            assert len(requests) <= (20 if "page=300" in path else 10), f"{path}: {requests}"
            assert len(statements) <= MOST_STATEMENTS, f"{path}: {statements}"
    finally:
        with engine.begin() as connection:
            connection.execute(sa.delete(batches.BATCHES).where(batches.BATCHES.c.batch_id.like("many-%")))
            connection.execute(sa.delete(results.RESULTS).where(results.RESULTS.c.model == model))
        with create_session() as session:
            mine = session.query(DagRun).filter(DagRun.run_id.like(f"{model}-%"))
            session.query(DagRunNote).filter(DagRunNote.dag_run_id.in_(mine.with_entities(DagRun.id))).delete(False)
            mine.delete(False)
