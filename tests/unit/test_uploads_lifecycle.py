"""The table of a batch's states: what it allows, and that the docs show the same one."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.settings import settings
from include.uploads.lifecycle import ENDS, MOVES, WAITING, Because, Entry, State, Who, allowed
from include.uploads.rounds import MOST_RETELLS, Pipeline, Step, joining, next_step

DOCS = Path(__file__).parents[2] / "docs/uploads.md"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDLE = Pipeline(hears=True, will_come=False, busy=False, is_over=lambda run_id: False)
PAUSED = Pipeline(hears=False, will_come=False, busy=False, is_over=lambda run_id: False)
BUSY = Pipeline(hears=True, will_come=True, busy=True, is_over=lambda run_id: False)
ENDED = Pipeline(hears=True, will_come=False, busy=False, is_over=lambda run_id: True)


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT_UPLOAD_RETRY_MINUTES", raising=False)
    settings.cache_clear()


def test_the_docs_show_the_table() -> None:
    table = DOCS.read_text().split("|---|---|---|---|\n")[1].split("\n\n")[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines()]
    assert rows == [[str(move.before), str(move.after), ", ".join(move.who), move.when] for move in MOVES]


def test_every_state_is_reached_and_what_is_taken_can_end_in_each_way() -> None:
    assert {move.after for move in MOVES} | {State.CLAIMED} == set(State)
    after_taken = {move.after for move in MOVES if move.before is State.TAKEN}
    assert after_taken == {*ENDS, State.RELEASED, State.AWAITING}
    assert all(allowed(state, State.TAKEN, Who.RUN) for state in WAITING)


def test_nobody_else_may_move_a_batch() -> None:
    assert not allowed(State.TAKEN, State.TAKEN, Who.RUN)
    assert not allowed(State.USED, State.RELEASED, Who.PERSON)
    assert not allowed(State.USED, State.TAKEN, Who.RUN)
    assert not allowed(State.SET_ASIDE, State.RELEASED, Who.LISTENER)


def entry(state: State, minutes_ago: float = 0, **facts: Any) -> Entry:
    at = NOW - timedelta(minutes=minutes_ago)
    return Entry(batch_id="b", number=1, state=state, who=Who.RUN, at=at, run_id="run 1", **facts)


def failed(failures: int, minutes_ago: float) -> Entry:
    return entry(State.RELEASED, minutes_ago, because=Because.FAILED, failures=failures)


@pytest.mark.parametrize(
    ("batch", "pipeline", "step"),
    [
        (entry(State.CLAIMED), IDLE, Step.TELL),
        (entry(State.CLAIMED), BUSY, Step.TELL),
        (entry(State.CLAIMED), PAUSED, None),
        (entry(State.TOLD, 0.5, tells=1), IDLE, None),  # its run may be about to be created
        (entry(State.TOLD, 2, tells=1), IDLE, Step.TELL),
        (entry(State.TOLD, 2, tells=1), BUSY, None),  # it is queued behind another
        (entry(State.TOLD, 2, tells=5), IDLE, None),  # with back-off
        (entry(State.TAKEN, 9999), BUSY, None),
        (entry(State.TAKEN), ENDED, Step.RELEASE),
        (failed(1, 4), IDLE, None),
        (failed(1, 6), IDLE, Step.TELL),
        (failed(1, 6), PAUSED, None),
        (failed(2, 6), IDLE, None),
        (failed(2, 11), IDLE, Step.TELL),
        (failed(MOST_RETELLS, 21), IDLE, Step.TELL),
        (failed(MOST_RETELLS + 1, 9999), IDLE, Step.GIVE_UP),
        (entry(State.RELEASED, 9999, because=Because.GAVE_UP, failures=4), IDLE, None),
        (entry(State.RELEASED, 9999, because=Because.WAITS), IDLE, None),
        (entry(State.RELEASED, because=Because.SUPERSEDED), IDLE, Step.TELL),
        (entry(State.AWAITING, 9999), ENDED, None),
        (entry(State.RELEASED, because=Because.READMITTED), BUSY, Step.TELL),
    ],
)
def test_what_a_listener_does_about_a_batch(batch: Entry, pipeline: Pipeline, step: Step | None) -> None:
    assert next_step(batch, pipeline, NOW) == step


def test_a_batch_on_its_last_try_goes_alone_and_is_not_held_up_by_one_that_waits_for_more_rows() -> None:
    last, again = failed(MOST_RETELLS, 0), failed(MOST_RETELLS - 1, 0)
    told = entry(State.TOLD, failures=MOST_RETELLS)
    few = entry(State.RELEASED, because=Because.WAITS)
    gave_up = entry(State.RELEASED, because=Because.GAVE_UP, failures=MOST_RETELLS + 1)
    assert joining([last, told, few, gave_up]) == [last]
    assert joining([last, told, again, few, gave_up]) == [again, few]
    assert joining([few, gave_up, entry(State.AWAITING)]) == [few, gave_up]
