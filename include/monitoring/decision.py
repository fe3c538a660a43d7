"""Whether a drift is answered by a new model: a decision with reasons, not a p-value."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from include.monitoring.drift import Comparison

Verb = Literal["retrain", "label", "wait", "nothing"]


@dataclass(frozen=True)
class Rules:
    """When a retraining is allowed.

    Args:
        cool_down_days: after an alarm or a new champion, in which another alarm changes nothing.
        a_month: retrainings within 30 days.
        least_new_rows: labelled rows that the champion has not learnt from; with fewer there is nothing to learn.
    """

    cool_down_days: int = 14
    a_month: int = 2
    least_new_rows: int = 50


@dataclass(frozen=True)
class Known:
    """What is known on the day of the decision.

    Args:
        today: the day.
        comparisons: of the drift test.
        last_alarm: the day of the last alarm that was acted on, if there was one.
        champion_since: the day of the last promotion.
        retrained: the days of earlier retrainings.
        new_rows: labelled rows that the champion has not learnt from.
    """

    today: date
    comparisons: tuple[Comparison, ...]
    last_alarm: date | None
    champion_since: date
    retrained: tuple[date, ...]
    new_rows: int


@dataclass(frozen=True)
class DriftDecision:
    """What is to be done, and why, in one sentence; of a drift that waits also for what."""

    verb: Verb
    reason: str
    because: Literal["", "cool_down", "budget"] = ""


def decide_on_drift(known: Known, rules: Rules) -> DriftDecision:
    """``retrain`` on a drift; ``label`` first if there is nothing to learn from; ``wait`` while it is not allowed."""
    alarms = [one for one in known.comparisons if one.alarms]
    if not alarms:
        return DriftDecision("nothing", _calm(known))
    odd = alarms[0]
    return answer(f"the traffic of the last {odd.window} days has drifted ({odd.name}: {odd.told})", known, rules)


def answer(drift: str, known: Known, rules: Rules) -> DriftDecision:
    """What follows from a drift that is told in words."""
    quiet_from = max(filter(None, (known.last_alarm, known.champion_since)))
    until = quiet_from + timedelta(days=rules.cool_down_days)
    if known.today < until:
        return DriftDecision("wait", f"{drift}; what was done on {quiet_from} is given time until {until}", "cool_down")
    if known.new_rows < rules.least_new_rows:
        return DriftDecision(
            "label",
            f"{drift}, and there is nothing to learn from: {known.new_rows} new labelled rows of the "
            f"{rules.least_new_rows} that it takes. Label the texts that are named",
        )
    recent = sorted(day for day in known.retrained if known.today - day < timedelta(days=30))
    if not rules.a_month:
        return DriftDecision("wait", f"{drift}; a drift may start no retraining here", "budget")
    if len(recent) >= rules.a_month:
        again = recent[-rules.a_month] + timedelta(days=30)
        return DriftDecision(
            "wait", f"{drift}; the month's {rules.a_month} retrainings are used up until {again}", "budget"
        )
    return DriftDecision("retrain", f"{drift}, and there are {known.new_rows} new labelled rows to learn from")


def _calm(known: Known) -> str:
    if not known.comparisons:
        return "too few texts or days for a test"
    odd = known.comparisons[0]
    return (
        f"no drift: the oddest of {len(known.comparisons)} tests, {odd.name} of {odd.window} days, has p = {odd.p:.2g}"
    )
