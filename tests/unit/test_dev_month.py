"""The simulated month, but for the stack: its days, its clock, what people write, and how it is judged and drawn."""

import copy
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dev.month import clock, plan, stories
from dev.month.clock import Clock
from dev.month.demo import conclude
from dev.month.telling import Event, Seen
from dev.month.texts import Messages
from dev.state import REPOSITORY

ASKED = """
import os, sys
from datetime import UTC, datetime
print(datetime.now(UTC).date(), flush=True)
sys.stdin.readline()
print(datetime.now(UTC).date(), flush=True)
if os.fork() == 0:
    print("child", datetime.now(UTC).date(), flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("today", [date(2026, 11, 27), date(2026, 11, 29), date(2026, 11, 30)], ids=str)
def test_the_month_is_the_last_four_whole_weeks(today: date) -> None:
    days = plan.month(today)
    assert [one.number for one in days] == list(range(28))
    assert days[0].date.strftime("%A") == "Sunday"
    assert days[-1].date < today <= days[-1].date + timedelta(days=7)
    assert [one.number for one in days if one.weekly_rows] == [0, 7, 14, 21]
    assert [one.number for one in days if one.german] == list(range(plan.DRIFT, 28))
    assert (days[plan.CAMPAIGN].week, days[plan.DRIFT].week, days[plan.FORCED].week) == (2, 3, 4)
    assert len(plan.WATCHED_BY_DAG) >= stories.LEAST_DAG_DAYS


def test_airflow_is_imported_when_the_months_stack_is_known_and_not_before() -> None:
    code = "import sys, dev.month.demo; print('airflow' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert asked.stdout == "False\n", "it would keep the database that it was configured with by then"


def test_nobody_writes_a_text_twice() -> None:
    messages = Messages()
    english = messages.draw(3_000)
    mixed = messages.draw(1_000, german=0.5, weights={"refund_request": 4.0})
    assert len({one.text for one in [*english, *mixed]}) == 4_000
    refunds = sum(one.label == "refund_request" for one in mixed)
    assert 300 < refunds < 500, "4 of 10"
    assert Messages().draw(3_000) == english


def test_a_program_follows_the_months_clock_when_it_is_moved_and_so_does_its_fork(tmp_path: Path) -> None:
    hands = Clock(tmp_path / "clock")
    hands.set(datetime(2025, 3, 1, 12, tzinfo=UTC))
    assert hands.now().date() == date(2025, 3, 1)
    env = os.environ | {clock.VARIABLE: str(hands.file), "PYTHONPATH": f"{clock.SITE}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-c", ASKED]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "2025-03-01\n"
        hands.set(datetime(2025, 3, 9, 12, tzinfo=UTC))
        rest, _ = program.communicate("\n")
    assert rest == "2025-03-09\nchild 2025-03-09\n"


def core(number: int, version: str, **values: float) -> dict[str, Any]:
    return {"champion": version, "decision": "nothing", "reason": "no drift", "alarms": [], "values": values}


@pytest.fixture
def days() -> list[Seen]:
    """A month as it should be."""
    found = []
    for day in plan.month(date(2026, 11, 27)):
        version = "1" if day.number <= 16 else "3"
        true = 0.6 if plan.DRIFT <= day.number <= 16 else 0.95
        values = {"accuracy.live": true, "accuracy.live_low": true - 0.1, "accuracy.live_high": true + 0.05}
        if day.number < plan.DRIFT:
            values |= {"accuracy.estimated": 0.94, "accuracy.estimated_error": 0.01}
        seen = Seen(day.number, day.date.isoformat(), day.week, day.texts, true, [version])
        seen.core = core(day.number, version, **values)
        if day.number in plan.WATCHED_BY_DAG:
            seen.dag = {"state": "success", "tasks": {}, "decision": "nothing"}
        if day.weekly_rows:
            outcome = "rejected" if day.number else "promoted"
            seen.events.append(Event(outcome, "weekly_etl", "as the gates say", "1"))
            report = {"outcome": outcome}
            seen.runs.append({"dag_id": "weekly_etl", "state": "success", "report": report, "fetched": 1, "lost": 0})
        found.append(seen)
    retrained = {"dag_id": "model_retraining_dag", "state": "success", "tasks": {"rollback_model": "success"}}
    found[plan.POISON].events.append(Event("rejected", "model_retraining_dag", "it is worse", "2"))
    found[plan.POISON].runs.append(retrained | {"report": {"outcome": "rejected"}})
    alarm = found[plan.DRIFT + 1]
    alarm.core |= {"decision": "retrain", "alarms": ["label mix"]}
    alarm.dag = {"state": "success", "tasks": {}, "decision": "retrain"}
    alarm.events += [Event("alarm", "core", "drift"), Event("promoted", "model_retraining_dag", "better", "3")]
    forced = found[plan.FORCED]
    forced.versions = ["3", "4"]
    forced.events += [Event("forced", "person", "4", "4"), Event("rolled_back", "watch_champion", "3 is back", "3")]
    forced.runs.append({"dag_id": "watch_champion", "state": "success", "tasks": {}, "report": {}})
    return found


def told(days: list[Seen], tmp_path: Path, trouble: str = "") -> tuple[int, dict[str, Any]]:
    result = tmp_path / "month.json"
    with (tmp_path / "said").open("w") as said:
        code = conclude(days, trouble, 60.0, Console(file=said, width=200), result, tmp_path / "month.png")
    return code, json.loads(result.read_text())


def test_a_month_as_it_should_be_is_told_with_a_picture(days: list[Seen], tmp_path: Path) -> None:
    code, found = told(days, tmp_path)
    assert [one["name"] for one in found["stories"] if not one["ok"]] == []
    assert (code, found["ok"], len(found["days"]), len(found["stories"])) == (0, True, 28, len(stories.STORIES))
    assert (tmp_path / "month.png").read_bytes().startswith(b"\x89PNG")
    said = (tmp_path / "said").read_text()
    assert "bad champion" in said
    assert "All ended as they should" in said


@pytest.mark.parametrize("number", [0, plan.CAMPAIGN, plan.POISON, plan.DRIFT + 1, plan.FORCED])
def test_a_month_that_broke_off_fails_and_is_drawn_as_far_as_it_came(
    days: list[Seen], tmp_path: Path, number: int
) -> None:
    code, found = told(days[:number], tmp_path, "OSError: the disk is full")
    assert (code, found["ok"], found["trouble"]) == (1, False, "OSError: the disk is full")
    assert "bad champion" in {one["name"] for one in found["stories"] if not one["ok"]}
    assert (tmp_path / "month.png").exists() == bool(number)


def spoilt(days: list[Seen], name: str) -> list[Seen]:
    found = copy.deepcopy(days)
    match name:
        case "weekly files":
            found[7].runs[0]["lost"] = 1
        case "harmless fluctuation":
            found[plan.CAMPAIGN].core["decision"] = "label"
        case "poisoned upload":
            found[plan.POISON].events[0].kind = "promoted"
        case "drift found":
            found[3].events.append(Event("alarm", "core", "it is wrong"))
        case "retrained and promoted":
            for day in found[17 : plan.FORCED]:
                day.true = 0.6
        case "bad champion":
            found[plan.FORCED + 1].versions = ["4"]
        case "late labels":
            for day in found:
                day.core["values"].pop("accuracy.live_low")
        case "estimated accuracy":
            for day in found:
                day.core["values"].pop("accuracy.estimated", None)  # though its error is small
        case "every day":
            found[27].dag = {"state": "failed", "tasks": {}, "decision": "nothing"}
    return found


@pytest.mark.parametrize("name", [story.name for story in stories.judge([])])
def test_each_story_can_fail(days: list[Seen], tmp_path: Path, name: str) -> None:
    code, found = told(spoilt(days, name), tmp_path)
    assert code == 1
    assert name in {one["name"] for one in found["stories"] if not one["ok"]}
