"""The day's decision: entered in the ledger with its reasons, once, and told to people where they have to know."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy.engine import Engine

from include.monitoring.assessment import Alarm, Assessment
from include.monitoring.decision import DriftDecision, Known, Rules, answer, decide_on_drift
from include.monitoring.drift import Comparison
from include.monitoring.traffic import Champion
from include.registry import ledger
from include.registry.ledger import Entry

VERB: ledger.Verb = "drift_decision"
DECISION, DAY, SINCE, BECAUSE, ACTED_ON = "decision", "day", "since", "because", ("retrain", "label")
MOST_DECISIONS = 2_000
SHOWN = 8  # tests that an entry has

ACTED_ON_WITHIN = timedelta(days=7)
"""A drift of a day longer ago may be over when it is found: nothing follows from it."""


@dataclass(frozen=True)
class Decided:
    """A decision as the ledger has it."""

    entry: Entry

    @property
    def verb(self) -> str:
        """What was decided: retrain, label, wait or nothing."""
        return str(self.entry.facts[DECISION])

    @property
    def day(self) -> date:
        """The day whose traffic the decision is about."""
        return date.fromisoformat(self.entry.facts[DAY])

    @property
    def waits_for(self) -> str:
        """What a drift that waits is waiting for, of which champion: the same on each day of that wait."""
        return f"{self.entry.version}: {self.entry.reason.rsplit('; ', 1)[-1]}"


def decisions(engine: Engine, model: str) -> list[Decided]:
    """A model's decisions, the newest first."""
    return [Decided(one) for one in ledger.entries(engine, model, verbs=[VERB], limit=MOST_DECISIONS)]


def alarms(engine: Engine, model: str) -> list[Alarm]:
    """The drifts that were seen: on which days, and since when."""
    seen = [one for one in decisions(engine, model) if one.entry.facts.get(SINCE)]
    return [Alarm(one.day, date.fromisoformat(one.entry.facts[SINCE]), one.entry.version) for one in seen]


def decide_day(
    champion: Champion,
    engine: Engine,
    day: date,
    now: datetime,
    assessment: Assessment,
    new_rows: int,
    rules: Rules,
    *,
    actor: str,
    holds: bool = True,
) -> Decided:
    """Decides on a day, or returns what was decided on it before about this champion: that holds.

    Nothing is decided, and entered, on a day that is not over, or of which a drift may be over.

    Args:
        champion: whose traffic it is.
        engine: the warehouse's.
        day: the last day of the traffic.
        now: when it is decided.
        assessment: of the drift test.
        new_rows: labelled rows that the champion has not learnt from.
        rules: when a retraining is allowed.
        actor: who decides.
        holds: whether the day is over.
    """
    known = _known(champion, engine, now, assessment.comparisons, new_rows)
    found = decide_on_drift(known, rules) if assessment.comparisons else DriftDecision("nothing", assessment.told)
    if is_long_ago(day, now) and assessment.alarms:
        found = DriftDecision("nothing", _over(day, now, assessment.alarms[0]))
    entry = _entry(champion, found, _facts(day, found, assessment, new_rows), now, actor, f"drift-{day}")
    if holds and not is_long_ago(day, now):
        return _entered(engine, entry)
    return Decided(ledger.find(engine, entry.decision_id) or entry)


def is_long_ago(day: date, now: datetime) -> bool:
    """Whether a drift of a day may be over now."""
    return now.astimezone(UTC).date() - day > ACTED_ON_WITHIN


def _over(day: date, now: datetime, odd: Comparison) -> str:
    ago = (now.astimezone(UTC).date() - day).days
    return (
        f"the traffic of the {odd.window} days until {day} had drifted ({odd.name}: {odd.told}), but that was {ago} "
        f"days ago and may be over: nothing follows from a day that is more than {ACTED_ON_WITHIN.days} days ago. "
        "Whether it lasts, the newest day says: start data_validation_dag without a day"
    )


def decide_again(
    champion: Champion, engine: Engine, drift: str, now: datetime, new_rows: int, rules: Rules, *, actor: str, run: str
) -> Decided:
    """Decides on a drift of the last days that is still there, by the same rules, once a run.

    That labels are wanted is not entered: ``decide_day`` says so, whose caller names the texts and asks for them.

    Args:
        champion: whose traffic it is.
        engine: the warehouse's.
        drift: in words.
        now: when it is decided.
        new_rows: labelled rows that the champion has not learnt from.
        rules: when a retraining is allowed.
        actor: who decides.
        run: the run's id.
    """
    found = answer(drift, _known(champion, engine, now, (), new_rows), rules)
    day = now.astimezone(UTC).date()
    facts = {DECISION: found.verb, DAY: day.isoformat(), "new_rows": new_rows, "told": drift}
    entry = _entry(champion, found, facts, now, actor, run)
    return Decided(entry) if found.verb == "label" else _entered(engine, entry)


def _known(
    champion: Champion, engine: Engine, now: datetime, comparisons: tuple[Comparison, ...], new_rows: int
) -> Known:
    before = decisions(engine, champion.model)
    return Known(
        today=now.astimezone(UTC).date(),
        comparisons=comparisons,
        last_alarm=max((_made(one) for one in before if one.verb in ACTED_ON), default=None),
        champion_since=champion.since.astimezone(UTC).date(),
        retrained=tuple(_made(one) for one in before if one.verb == "retrain"),
        new_rows=new_rows,
    )


def _entry(
    champion: Champion, found: DriftDecision, facts: dict[str, Any], now: datetime, actor: str, request: str
) -> Entry:
    return Entry(
        model_name=champion.model,
        verb=VERB,
        version=champion.version,
        previous_champion=champion.version,
        actor=actor,
        reason=found.reason,
        dag_run_id=request,
        facts=facts,
        decided_at=now,
    )


def _entered(engine: Engine, entry: Entry) -> Decided:
    """As the ledger has it: what was entered first holds."""
    ledger.append(engine, entry)
    return Decided(ledger.find(engine, entry.decision_id) or entry)


def _made(decided: Decided) -> date:
    return decided.entry.decided_at.astimezone(UTC).date()


def _facts(day: date, found: DriftDecision, assessment: Assessment, new_rows: int) -> dict[str, Any]:
    facts: dict[str, Any] = {DECISION: found.verb, DAY: day.isoformat(), "new_rows": new_rows, "told": assessment.told}
    facts |= {BECAUSE: found.because} if found.because else {}
    if assessment.reference:
        facts["reference"] = [one.isoformat() for one in assessment.reference]
    facts["tests"] = [
        {"name": one.name, "window": one.window, "p": one.p, "level": one.level, "alarms": one.alarms, "told": one.told}
        for one in assessment.comparisons[:SHOWN]
    ]
    if assessment.alarms and assessment.recent:
        facts[SINCE] = (assessment.recent[1] - timedelta(days=assessment.alarms[0].window - 1)).isoformat()
    return facts
