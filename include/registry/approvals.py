"""Challengers that wait for a person: asked for in the ledger, and answered there once.

PromotionRefused
└── ApprovalRefused
    ├── NothingAwaits      there is no such challenger, or none that waits
    ├── AlreadyAnswered    another answer was given, or it was superseded
    ├── Superseded         the champion is of other data than it was built on
    └── NotConvinced       the gates say no, and nobody has forced them
"""

from dataclasses import dataclass

from sqlalchemy.engine import Engine

from include.registry import ledger, models, telling, versions
from include.registry.aliases import PromotionRefused, carry_out, facts_of, require
from include.registry.ledger import MOVES, Entry
from include.registry.promotion import is_news
from include.registry.standing import reconcile

DAG_ID = "dag_id"
"""The fact of an ``await`` that says whose run it was."""

MOST_ENTRIES = 10_000


class ApprovalRefused(PromotionRefused):
    """What a person asked for cannot be done."""


class NothingAwaits(ApprovalRefused):
    """No challenger waits for a person, or not the one that was named."""


class AlreadyAnswered(ApprovalRefused):
    """Another answer was given before."""


class Superseded(ApprovalRefused):
    """The champion is of other data by now than the challenger was built on."""


class NotConvinced(ApprovalRefused):
    """Against the champion and the golden rows of today a gate fails."""


@dataclass(frozen=True)
class Wait:
    """A challenger that waits for a person, or did.

    Attributes:
        asked: the ledger's ``await``: the version, the run and the numbers.
        answer: what ended it: ``promote``, ``reject``, ``supersede``, or another move that made it champion.
    """

    asked: Entry
    answer: Entry | None

    @property
    def parent_dataset_id(self) -> str | None:
        """The dataset that it was built on."""
        parent: str | None = self.asked.facts.get(versions.PARENT)
        return parent


def waits(engine: Engine, model_name: str) -> list[Wait]:
    """All challengers of a model that ever waited for a person, the first first."""
    verbs = ("await", "reject", "supersede", *MOVES)
    found: list[Wait] = []
    for entry in reversed(ledger.entries(engine, model_name, verbs=verbs, limit=MOST_ENTRIES)):
        if entry.verb == "await":
            found.append(Wait(entry, None))
        else:
            found = [Wait(one.asked, entry) if _ends(entry, one) else one for one in found]
    return found


def of_run(engine: Engine, model_name: str, dag_run_id: str) -> Wait | None:
    """The challenger of a run that waits, or did; None if the run asked nobody."""
    return next((one for one in waits(engine, model_name) if one.asked.dag_run_id == dag_run_id), None)


def ask(entry: Entry, engine: Engine) -> None:
    """Enters that a version waits for a person, and says so in its tags; may be repeated."""
    if entry.verb != "await":
        raise ValueError(f"decision {entry.decision_id} is to {entry.verb}, not to await a person")
    ledger.append(engine, entry)
    telling.tell(entry)
    if version := models.by_version(entry.model_name, entry.version):
        models.tag(version, facts_of(entry) | {versions.ROWS: versions.AWAITING})


def answer(entry: Entry, engine: Engine) -> Entry:
    """Carries out the first answer; returns the one that holds: this one, or the same if it was given before.

    Raises AlreadyAnswered if another one was, NothingAwaits if nobody was asked, ChampionChanged if the champion is not
    ``entry.previous_champion``, and VersionUnusable if a version that is to be promoted cannot be served.
    """
    with ledger.exclusive(engine, entry.model_name):
        now = reconcile(entry.model_name, engine)
        wait = of_run(engine, entry.model_name, entry.dag_run_id)
        if wait is None:
            raise NothingAwaits(f"{entry.model_name}: the run {entry.dag_run_id} has no challenger that waits")
        if wait.answer is not None:
            return same(wait.answer, entry.verb)
        if entry.verb == "promote":
            version = require(entry.model_name, entry.version)
            is_news(entry, now)
            carry_out(engine, entry)
            models.tag(version, {versions.ROWS: versions.USED})
            return entry
        ledger.append(engine, entry)
        telling.tell(entry)
        if found := models.by_version(entry.model_name, entry.version):
            rows = versions.ASIDE if entry.verb == "reject" else versions.RELEASED
            models.tag(found, facts_of(entry) | {versions.ROWS: rows})
        return entry


def same(given: Entry, verb: str) -> Entry:
    """The answer that was given, if it comes to what is asked for now. Raises AlreadyAnswered."""
    if outcome_of(given) == OUTCOMES.get(verb):
        return given
    ways = {
        "promoted": "To take it back: make rollback",
        "rejected": f"Its rows join the next run by: make readmit RUN='{given.dag_run_id}'",
        "superseded": "Its rows are built on the champion's by the next run, whose challenger can be decided on",
    }
    raise AlreadyAnswered(
        f"{given.model_name} version {given.version} was {outcome_of(given)} before, on {given.decided_at:%F %R} UTC "
        f"by {given.actor} ({given.reason}): that holds. {ways[outcome_of(given)]}"
    )


OUTCOMES = {"promote": "promoted", "reject": "rejected", "supersede": "superseded"}


def outcome_of(given: Entry) -> str:
    """What an answer made of the run that waited."""
    return OUTCOMES["promote" if given.verb in MOVES else given.verb]


def _ends(entry: Entry, wait: Wait) -> bool:
    return wait.answer is None and wait.asked.version == entry.version
