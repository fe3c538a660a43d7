"""A batch's life: its states, who moves it from one to the next, and the record of every move.

``MOVES`` is the whole table; ``docs/uploads.md`` shows the same one. A batch is *claimed* by its manifest. Each later
move is a numbered object, ``claims/<batch_id>/life/000001.json`` and so on, that is created once with If-None-Match:
who moves a batch reads the last entry, looks into the table whether it may be moved from there, and creates the next
number. Of two at once one wins, and the other reads again. The last entry says all that is known of the batch, so its
life costs one listing and one read, however long it is.

A batch of an older version has no such entries; if it has a ``run.json``, that run has taken it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from include import lake, objects


class State(StrEnum):
    """Where a batch stands."""

    CLAIMED = "claimed"
    TOLD = "told"
    TAKEN = "taken"
    AWAITING = "awaiting approval"
    USED = "used"
    SET_ASIDE = "set aside"
    RELEASED = "released"
    QUARANTINED = "quarantined"


class Who(StrEnum):
    """Who moves a batch."""

    LISTENER = "listener"
    RUN = "run"
    ROLLBACK = "rollback"
    PERSON = "readmit"
    DECISION = "decide_challenger"


class Move(NamedTuple):
    """One line of the table."""

    before: State
    after: State
    who: tuple[Who, ...]
    when: str


MOVES = (
    Move(State.CLAIMED, State.TOLD, (Who.LISTENER,), "its files are sealed and the pipeline listens"),
    Move(State.TOLD, State.TOLD, (Who.LISTENER,), "no run came of it, or the same file was uploaded again"),
    Move(State.RELEASED, State.TOLD, (Who.LISTENER,), "its time has come, or the same file was uploaded again"),
    Move(State.CLAIMED, State.TAKEN, (Who.RUN,), "a run starts, whoever started it"),
    Move(State.TOLD, State.TAKEN, (Who.RUN,), "a run starts, whoever started it"),
    Move(State.RELEASED, State.TAKEN, (Who.RUN,), "a run starts, whoever started it"),
    Move(State.TAKEN, State.USED, (Who.RUN,), "its rows are in the champion"),
    Move(State.TAKEN, State.AWAITING, (Who.RUN,), "its challenger waits for a person (`BERT_PROMOTION=manual`)"),
    Move(
        State.TAKEN,
        State.SET_ASIDE,
        (Who.RUN,),
        "the challenger was shown worse, or a file waits for approval",
    ),
    Move(State.TAKEN, State.QUARANTINED, (Who.RUN,), "none of its rows can be used; they lie in quarantine/"),
    Move(
        State.TAKEN,
        State.RELEASED,
        (Who.RUN, Who.LISTENER),
        "there are too few rows, nothing was shown, the champion moved, or the run is over without an outcome",
    ),
    Move(State.AWAITING, State.USED, (Who.DECISION,), "somebody approves its challenger"),
    Move(
        State.AWAITING,
        State.SET_ASIDE,
        (Who.DECISION,),
        "somebody rejects its challenger, or approves it and a file waits for approval itself",
    ),
    Move(
        State.AWAITING,
        State.RELEASED,
        (Who.DECISION,),
        "the champion is of other data than its challenger was built on",
    ),
    Move(State.RELEASED, State.RELEASED, (Who.LISTENER,), "it was told three times in vain: now it waits for a person"),
    Move(State.USED, State.SET_ASIDE, (Who.ROLLBACK,), "its version is left by a rollback"),
    Move(State.SET_ASIDE, State.USED, (Who.ROLLBACK,), "a rollback returns to its version"),
    Move(State.SET_ASIDE, State.RELEASED, (Who.PERSON,), "somebody takes its rows back"),
)
WAITING = (State.CLAIMED, State.TOLD, State.RELEASED)
"""What a run takes when it starts."""
ENDS = (State.USED, State.SET_ASIDE, State.QUARANTINED)
"""What is over, unless a person or a rollback says otherwise."""


class Because(StrEnum):
    """Why a batch was released, which decides whether and when it is told again."""

    NONE = ""
    FAILED = "failed"  # told again after a while, three times
    SUPERSEDED = "superseded"  # told again at once
    READMITTED = "readmitted"  # told again at once
    WAITS = "waits"  # joins the next run, whatever that starts for
    GAVE_UP = "gave up"  # joins the next run, and somebody should look


class Entry(BaseModel):
    """A batch's state after its ``number``-th move, and what led there."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    number: int
    state: State
    who: Who
    at: datetime
    run_id: str = ""  # the run that has the batch, or had it last
    caller: str = ""  # who told of it: the same when it repeats itself
    because: Because = Because.NONE
    reason: str = ""
    tells: int = 0  # since it was last uploaded or readmitted
    failures: int = 0  # of runs, likewise
    again: list[str] = []  # files of which no row was used: uploaded again, they are new

    @property
    def waiting(self) -> bool:
        """Whether a run that starts now takes it."""
        return self.state in WAITING

    @property
    def is_retried(self) -> bool:
        """Whether it waits for another run because the last one failed."""
        return self.failures > 0 and (self.state is State.TOLD or self.because is Because.FAILED)


def allowed(before: State, after: State, who: Who) -> bool:
    """Whether the table has this move."""
    return any((move.before, move.after) == (before, after) and who in move.who for move in MOVES)


def read(batch_id: str) -> Entry:
    """The newest entry of a sealed batch's life."""
    folder = lake.claims(batch_id, "life/")
    entries = objects.find(folder)
    if entries:
        return Entry.model_validate_json(objects.read_bytes(entries[-1]))
    first = Entry(
        batch_id=batch_id, number=0, state=State.CLAIMED, who=Who.LISTENER, at=datetime.min.replace(tzinfo=UTC)
    )
    old = lake.claims(batch_id, "run.json")
    if objects.exists(old):
        return first.model_copy(
            update={"state": State.TAKEN, "who": Who.RUN, "run_id": objects.read_json(old)["run_id"]}
        )
    return first


def move(
    batch_id: str,
    after: State,
    who: Who,
    *,
    provided: Callable[[Entry], bool] = lambda entry: True,
    anew: bool = False,
    **facts: object,
) -> Entry | None:
    """Moves a batch, and returns its new entry; None if the table or ``provided`` forbids it from where it stands.

    ``anew`` starts the counts of tells and failures again. ``facts`` are fields of the entry; a run's id, and which
    files may come again, are kept from the entry before where they are not named.
    """
    while True:
        last = read(batch_id)
        if not (allowed(last.state, after, who) and provided(last)):
            return None
        failed = after is State.RELEASED and facts.get("because") == Because.FAILED
        entry = Entry.model_validate(
            {
                "run_id": last.run_id,
                "again": last.again,
                **facts,
                "batch_id": batch_id,
                "number": last.number + 1,
                "state": after,
                "who": who,
                "at": datetime.now(UTC),
                "tells": (0 if anew else last.tells) + (after is State.TOLD),
                "failures": (0 if anew else last.failures) + failed,
            }
        )
        uri = lake.claims(batch_id, f"life/{entry.number:06}.json")
        if objects.create_bytes(uri, entry.model_dump_json(indent=2).encode()):
            return entry
