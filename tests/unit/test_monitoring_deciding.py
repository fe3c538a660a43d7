"""The day's decision in the ledger: once a day, with its reasons, heeding those before it."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from uuid import uuid4

import pytest
from sqlalchemy.engine import Engine

from include.monitoring.assessment import Alarm, Assessment
from include.monitoring.deciding import Decided, alarms, decide_day, decisions
from include.monitoring.decision import Rules
from include.monitoring.drift import Comparison
from include.monitoring.traffic import Champion
from include.registry import ledger

pytest_plugins = ["tests.unit.registry_services"]

DAY = date(2026, 3, 30)
DRIFT = Comparison("label mix", 7, 1e-9, 1e-4, 1e-6, "card 41.0%, was 20.0%")
CALM = Comparison("label", 14, 0.2, 1e-4, 0.4, "card 21.0%, was 20.0%")


@pytest.fixture
def champion() -> Champion:
    return Champion(f"m-{uuid4().hex[:8]}", "2", "", ("card", "refund"), datetime(2026, 1, 1, tzinfo=UTC))


def decide(
    champion: Champion,
    engine: Engine,
    day: date,
    *tests: Comparison,
    rows: int = 500,
    holds: bool = True,
    rules: Rules | None = None,
) -> Decided:
    spans = ((day - timedelta(days=40), day - timedelta(days=13)), (day - timedelta(days=12), day))
    now = datetime.combine(day + timedelta(days=1), time(0, 10), UTC)
    found = Assessment(tests, *spans, (1_000, 400), "…")
    return decide_day(champion, engine, day, now, found, rows, rules or Rules(), actor="test", holds=holds)


def test_what_was_decided_on_a_day_holds(champion: Champion, engine: Engine) -> None:
    first = decide(champion, engine, DAY, DRIFT)
    again = decide(champion, engine, DAY, CALM, rows=0)
    assert first.verb == again.verb == "retrain"
    assert first.entry.decision_id == again.entry.decision_id
    (entry,) = ledger.entries(engine, champion.model, verbs=["drift_decision"])
    assert entry.facts["since"] == "2026-03-24"
    assert entry.facts["tests"][0]["told"] == "card 41.0%, was 20.0%"
    assert entry.facts["reference"] == ["2026-02-18", "2026-03-17"]
    assert "there are 500 new labelled rows to learn from" in entry.reason
    assert alarms(engine, champion.model) == [Alarm(DAY, date(2026, 3, 24), "2")]


def test_what_is_thought_of_a_day_that_is_not_over_is_not_entered(champion: Champion, engine: Engine) -> None:
    assert decide(champion, engine, DAY, DRIFT, holds=False).verb == "retrain"
    assert decisions(engine, champion.model) == []


def test_a_drift_that_goes_on_is_acted_on_once_until_the_cool_down_is_over(champion: Champion, engine: Engine) -> None:
    verbs = [decide(champion, engine, DAY + timedelta(days=days), DRIFT).verb for days in range(30)]
    assert verbs[0] == verbs[14] == "retrain"
    assert set(verbs[1:14]) == {"wait"}
    assert verbs[28] == "wait", "the month's two are used up"
    last = decisions(engine, champion.model)
    assert last[1].entry.facts["because"] == "budget"
    assert last[-2].entry.facts["because"] == "cool_down"


@pytest.mark.parametrize("a_month", [0, 1])
def test_a_budget_that_is_used_up_is_one_event_however_the_drift_goes_on(
    champion: Champion, engine: Engine, a_month: int
) -> None:
    odd = (DRIFT, replace(DRIFT, told="card 43.0%, was 20.0%"))
    rules = Rules(cool_down_days=0, a_month=a_month)
    decide(champion, engine, DAY, DRIFT, rules=rules)
    later = [decide(champion, engine, DAY + timedelta(days=1 + at), one, rules=rules) for at, one in enumerate(odd)]
    assert {one.entry.facts["because"] for one in later} == {"budget"}
    assert later[0].entry.reason != later[1].entry.reason
    assert later[0].waits_for == later[1].waits_for


def test_a_calm_day_and_one_without_a_test_are_decided_on_too(champion: Champion, engine: Engine) -> None:
    assert decide(champion, engine, DAY, CALM).verb == "nothing"
    other = DAY + timedelta(days=1)
    found = Assessment((), None, None, (0, 0), "the prediction log is empty")
    now = datetime.combine(other, time(1), UTC)
    nothing = decide_day(champion, engine, other, now, found, 0, Rules(), actor="test")
    assert (nothing.verb, nothing.entry.reason) == ("nothing", "the prediction log is empty")
    assert nothing.day == other
    assert alarms(engine, champion.model) == []
    assert ledger.last_move(engine, champion.model) is None, "no decision moves a champion"
