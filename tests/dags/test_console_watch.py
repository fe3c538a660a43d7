"""The page Watch: what was found, why it has or has not trained again, and the month's retrainings."""

from datetime import UTC, datetime, timedelta

import pytest
from airflow.models import DagRun
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake, objects
from include.registry.ledger import Entry
from plugins.console.watch_pages import RETRAINING
from tests.dags.console_app import SCRIPT, Visitor, enter, watch

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


def test_what_is_watched_is_shown_and_why_nothing_was_trained(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    found = [
        {"model": model, "check": "drift.score", "value": 0.1, "told": "none"},
        {"model": model, "check": SCRIPT, "value": 0.5, "verdict": "failed", "told": SCRIPT},
    ]
    watch(engine, found)
    page = console["viewer"].get("/console/watch/").text
    assert "these checks complained" in page
    assert "<script>alert" not in page
    enter(engine, model, "drift_decision", "1", facts={"decision": "wait", "day": "2026-11-20"}, reason="too few rows")
    assert "Not trained again: on Nov 20, 2026, too few rows" in console["viewer"].get("/console/watch/").text


def test_the_months_retrainings_are_counted_and_what_became_of_the_newest_is_said(
    console: dict[str, Visitor], model: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)

    def page() -> str:
        return str(console["viewer"].get("/console/watch/").text)

    def decide(days: int, decision: str = "retrain") -> Entry:
        facts = {"decision": decision, "day": f"{now.date() - timedelta(days=days)}"}
        at = now - timedelta(days=days)
        return enter(
            engine, model, "drift_decision", "1", dag_run_id=f"d{days}", decided_at=at, facts=facts, reason="a drift"
        )

    decide(40)
    decide(20)
    assert "in the last 30 days: 1 of 2" in page()
    entry = decide(10)
    assert "in the last 30 days: 2 of 2" in page()
    assert f"{now + timedelta(days=10):%Y-%m-%d}" in page(), "then the first of the two is 30 days ago"
    assert "To be trained again" in page()
    monkeypatch.setenv("BERT_RETRAIN_ON_DRIFT", "false")
    assert "though it was due" in page()
    run = DagRun(
        RETRAINING,
        f"drift__{entry.decision_id}",
        execution_date=now,
        run_type="manual",
        data_interval=(now, now),
        state="running",
    )
    with create_session() as session:
        session.add(run)
    assert "It is being trained again" in page()
    assert f"run_id=drift__{entry.decision_id}" in page()
    with create_session() as session:
        session.merge(run).state = "success"
    objects.write_json(lake.report(RETRAINING, run.run_id, "run.json"), {"outcome": "rejected"})
    assert "the champion stayed (rejected)" in page()
    objects.write_json(lake.report(RETRAINING, run.run_id, "run.json"), {"outcome": "promoted"})
    assert "Trained again: on" in page()
