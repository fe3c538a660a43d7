"""What a listener does about open batches in each of its rounds: tell of them, release them, give them up.

Nothing waits silently: a batch is told of as soon as the pipeline can hear it, again if no run came of it, and after a
run that failed for good again with back-off. After three failures more it waits for a person, who is alerted.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from include.settings import settings
from include.uploads import lifecycle, open_batches
from include.uploads.lifecycle import Because, Entry, State, Who

logger = logging.getLogger(__name__)

MOST_RETELLS = 3
LONGEST_PAUSE = timedelta(hours=1)


@dataclass(frozen=True)
class Pipeline:
    """What has to be known of whoever trains.

    Attributes:
        hears: an event that is sent now starts a run some time; false while the DAG is paused.
        will_come: a run that will take what waits is queued, or an event is that will start one.
        busy: any run is queued or running.
        is_over: whether a run, by its id, has ended or is gone.
    """

    hears: bool
    will_come: bool
    busy: bool
    is_over: Callable[[str], bool]


class Step(StrEnum):
    """What is to be done about a batch now."""

    TELL = "tell"
    RELEASE = "release"
    GIVE_UP = "give up"


def joining(entries: list[Entry]) -> list[Entry]:
    """Which of these batches a run that starts now takes: all that no run has taken. But for two things.

    As long as a batch waits whose last run failed, those that were given up stay away: it may have failed because of
    them, and would then be given up too, like every later upload. And batches on their last try are taken one by one,
    after all that is not: of several whose runs failed together, only that is given up which makes a run fail.
    """
    waiting = [entry for entry in entries if entry.waiting]
    if any(entry.is_retried for entry in waiting):
        waiting = [entry for entry in waiting if entry.because is not Because.GAVE_UP]
    last_try = [entry for entry in waiting if entry.is_retried and entry.failures >= MOST_RETELLS]
    others = [entry for entry in waiting if entry not in last_try]
    if not last_try or any(entry.because is not Because.WAITS for entry in others):
        return others
    return last_try[:1]  # what waits for more rows starts no run, so this would wait for ever behind it


def release_abandoned(pipeline: Pipeline, entries: list[Entry] | None = None) -> list[Entry]:
    """Releases the batches of runs that are over without an outcome; returns what they were moved to."""
    steps = [(entry, next_step(entry, pipeline)) for entry in (open_batches.lives() if entries is None else entries)]
    return [moved for entry, step in steps if step is Step.RELEASE and (moved := _release(entry))]


def next_step(entry: Entry, pipeline: Pipeline, now: datetime | None = None) -> Step | None:
    """What is to be done about one open batch; None if there is nothing to do but wait."""
    age = (now or datetime.now(UTC)) - entry.at
    if entry.state is State.TAKEN:
        return Step.RELEASE if pipeline.is_over(entry.run_id) else None
    if entry.state is State.RELEASED and entry.because is Because.FAILED and entry.failures > MOST_RETELLS:
        return Step.GIVE_UP
    if not pipeline.hears or entry.state is State.AWAITING:
        return None
    if entry.state is State.CLAIMED:
        return Step.TELL
    if entry.state is State.TOLD:
        return Step.TELL if not pipeline.busy and age >= _pause(entry.tells, _look()) else None
    if entry.because is Because.FAILED:
        first = timedelta(minutes=settings().upload_retry_minutes)
        return Step.TELL if age >= _pause(entry.failures, first) else None
    return Step.TELL if entry.because in (Because.SUPERSEDED, Because.READMITTED) else None


def tell(batch_id: str, caller: str, *, anew: bool = False) -> bool:
    """Enters that a batch was told of; False if another has done so, or a run has it.

    ``caller`` is the same when it repeats itself, and is then told yes again: its event may have got lost. ``anew`` is
    for files that were uploaded again.
    """
    entry = lifecycle.move(
        batch_id,
        State.TOLD,
        Who.LISTENER,
        provided=lambda last: not (last.state is State.TOLD and last.caller == caller),
        anew=anew,
        caller=caller,
        run_id="",
    )
    if entry is not None:
        return True
    last = lifecycle.read(batch_id)
    return last.state is State.TOLD and last.caller == caller


def give_up(entry: Entry) -> Entry | None:
    """Lets a batch wait for a person; None if it has moved on meanwhile."""
    reason = f"{entry.failures} runs failed on it, the last one {entry.run_id}: {entry.reason}"
    return _move_on(entry, Because.GAVE_UP, reason)


def _release(entry: Entry) -> Entry | None:
    moved = _move_on(entry, Because.FAILED, f"run {entry.run_id} is over without an outcome")
    if moved is not None:
        logger.warning("batch %s is released: %s", entry.batch_id, moved.reason)
    return moved


def _move_on(entry: Entry, because: Because, reason: str) -> Entry | None:
    return lifecycle.move(
        entry.batch_id,
        State.RELEASED,
        Who.LISTENER,
        provided=lambda last: last.number == entry.number,
        because=because,
        reason=reason,
    )


def _pause(times: int, first: timedelta) -> timedelta:
    pause: timedelta = first * 2 ** min(max(times - 1, 0), 10)
    return min(pause, max(first, LONGEST_PAUSE))


def _look() -> timedelta:
    return timedelta(seconds=settings().batches_look_seconds)
