"""What is simulated: years without a drift, drifts, and accuracy without labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from dev.drift.pool import Answers, Pool
from dev.drift.rivals import RIVALS, Columns, columns
from dev.drift.world import KINDS, Change, Day, Kind, World
from include.monitoring.accuracy import Calibration
from include.monitoring.assessment import NEVER_REFERENCE, REFERENCE_DAYS, reference_size
from include.monitoring.days import Days, join
from include.monitoring.drift import DAYS_A_YEAR, LEAST_DAYS, WINDOWS, Reference, assess

COOL_DOWN_DAYS = 14
TEXTS = (50, 500, 5_000)  # a day
MOST_REFERENCE_TEXTS = 10_000  # that a rival compares with, drawn from the reference, or its test would take minutes
LONGEST = 60  # days after a drift in which it may be found
USUAL = next(kind for kind in KINDS if kind.name == "usual")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Drift:
    """A change that begins at once, or grows over so many days."""

    name: str
    change: Change
    grows_days: int = 1

    def on(self, day: int) -> Change:
        """What of it there is on a day, the first being 1."""
        part = min(1.0, day / self.grows_days)
        return Change(self.change.moved * part, self.change.strange * part)


DRIFTS = (
    *(Drift(f"{size:.0%} label shift", Change(moved=size)) for size in (0.05, 0.1, 0.2)),
    *(Drift(f"{size:.0%} unknown labels", Change(strange=size)) for size in (0.05, 0.2)),
    Drift("20% label shift over 30 days", Change(moved=0.2), grows_days=30),
)


@dataclass(frozen=True)
class Size:
    """How much is simulated: days without a drift for each traffic, and drifts of each kind and traffic."""

    no_drift_days: int = 7_300
    drifts: int = 20
    young: int = 20  # champions of each kind of world and traffic, watched until their reference is whole
    shifts: int = 50


class Years:
    """Days without a drift: false alarms, and how odd each rival found each day."""

    def __init__(self) -> None:
        self.days = 0
        self.alarms = dict.fromkeys(("ours", *RIVALS), 0)
        self.oddness: dict[str, list[float]] = {name: [] for name in RIVALS}

    def add(self, pool: Pool, texts: int, kind: Kind, seed: int, days: int) -> None:
        """Simulates one champion's days after its reference."""
        world = World(pool, texts, kind, seed)
        first = [world.day() for _ in range(REFERENCE_DAYS)]
        known, sample = Reference(join([day.sums for day in first])), _sample(first, seed)
        recent: list[Days] = []
        quiet = dict.fromkeys(self.alarms, 0)
        for _ in range(days):
            day = world.day()
            recent = [*recent, day.sums][-max(WINDOWS) :]
            alarms = {"ours": any(one.alarms for one in assess(known, join(recent)))}
            today = columns(day.answers)
            for name, test in RIVALS.items():
                odd, alarms[name] = test(sample, today)
                self.oddness[name].append(odd)
            for name, alarm in alarms.items():
                if quiet[name]:
                    quiet[name] -= 1
                elif alarm:
                    self.alarms[name] += 1
                    quiet[name] = COOL_DOWN_DAYS
            self.days += 1

    def a_year(self, name: str) -> float:
        """False alarms a year."""
        return self.alarms[name] * DAYS_A_YEAR / max(self.days, 1)

    def threshold(self, name: str) -> float:
        """At which a rival would alarm on one day of a year."""
        return float(np.quantile(self.oddness[name], 1 - 1 / DAYS_A_YEAR))


def everything(pool: Pool, size: Size, tell: Tell) -> dict[str, Any]:
    """All that the page shows."""
    by_texts, no_drift = {}, []
    for texts in TEXTS:
        together = Years()
        for number, kind in enumerate(KINDS):
            years = Years()
            share = size.no_drift_days // len(KINDS)
            for year in range(0, share, int(DAYS_A_YEAR)):
                years.add(pool, texts, kind, 1_000 * number + year, min(int(DAYS_A_YEAR), share - year))
            no_drift.append({"texts_a_day": texts, "kind": kind.name, "days": years.days}
                            | {name: round(years.a_year(name), 2) for name in years.alarms})  # fmt: skip
            tell(f"{no_drift[-1]}")
            _merge(together, years)
        by_texts[texts] = together
    detection = []
    for drift in DRIFTS:
        for texts in TEXTS:
            thresholds = {name: by_texts[texts].threshold(name) for name in RIVALS}
            found = [_found(pool, texts, drift, seed, thresholds) for seed in range(size.drifts)]
            detection.append({"kind": drift.name, "texts_a_day": texts, "drifts": len(found)} | _summed(found))
            tell(f"{detection[-1]}")
    days = sum(years.days for years in by_texts.values())
    return {
        "no_drift": {"model_days": days, "cells": no_drift}
        | {name: round(sum(y.alarms[name] for y in by_texts.values()) * DAYS_A_YEAR / days, 2)
           for name in ("ours", *RIVALS)},
        "data": pool.source,
        "young": _young(pool, size.young),
        "detection": detection,
        "estimated_accuracy": list(_estimates(pool, size.shifts)),
    }  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """What was aimed at, and whether it holds."""

    told: str
    holds: bool


def bounds(found: dict[str, Any]) -> Iterator[Bound]:
    """The aims: false alarms within their rate, and a 20 % label shift at 500 texts a day within 3 days."""
    worst = max(cell["ours"] for cell in found["no_drift"]["cells"])
    mean = found["no_drift"]["ours"]
    yield Bound(f"at most 1 false alarm a year: {mean} on {found['no_drift']['model_days']} days", mean <= 1)
    young = found["young"]
    yield Bound(f"likewise while references are young: {young['ours']} on {young['days']} days", young["ours"] <= 1)
    yield Bound(f"in each kind of world and traffic: {worst} at worst", worst <= 1)
    cell = next(c for c in found["detection"] if c["kind"] == DRIFTS[2].name and c["texts_a_day"] == 500)
    yield Bound(
        f"a 20 % label shift at 500 texts a day within 3 days: {cell['ours']['days']}", cell["ours"]["days"] <= 3
    )


def _merge(into: Years, other: Years) -> None:
    into.days += other.days
    for name, count in other.alarms.items():
        into.alarms[name] += count
    for name, values in other.oddness.items():
        into.oddness[name] += values


def _young(pool: Pool, champions: int) -> dict[str, float]:
    """False alarms a year while references grow from 7 days to 28, and the last week is never part of one."""
    days = alarms = 0
    for kind in KINDS:
        for texts in TEXTS:
            for seed in range(champions):
                world = World(pool, texts, kind, 200_000 + seed)
                seen = join([world.day().sums for _ in range(REFERENCE_DAYS + NEVER_REFERENCE + 1)])
                for number in range(LEAST_DAYS + min(WINDOWS), len(seen)):
                    size = reference_size(number)
                    alarms += any(one.alarms for one in assess(Reference(seen[:size]), seen[size:number]))
                    days += 1
    return {"days": days, "ours": round(alarms * DAYS_A_YEAR / max(days, 1), 2)}


def _found(pool: Pool, texts: int, drift: Drift, seed: int, thresholds: dict[str, float]) -> dict[str, int | None]:
    """After how many days each found a drift; None: not within 60. The rivals have our rate of false alarms."""
    world = World(pool, texts, USUAL, 100_000 + seed)
    first = [world.day() for _ in range(REFERENCE_DAYS)]
    known, sample = Reference(join([day.sums for day in first])), _sample(first, seed)
    recent = [world.day().sums for _ in range(max(WINDOWS))]
    found: dict[str, int | None] = dict.fromkeys(("ours", *RIVALS))
    for number in range(1, LONGEST + 1):
        day = world.day(drift.on(number))
        recent = [*recent, day.sums][-max(WINDOWS) :]
        if found["ours"] is None and any(one.alarms for one in assess(known, join(recent))):
            found["ours"] = number
        today = columns(day.answers)
        for name, test in RIVALS.items():
            if found[name] is None and test(sample, today)[0] > thresholds[name]:
                found[name] = number
        if None not in found.values():
            break
    return found


def _summed(found: list[dict[str, int | None]]) -> dict[str, Any]:
    """Of each side the median of the days, those that were not found as the longest, and the share that was."""
    sides = {}
    for name in found[0]:
        days = [one[name] for one in found]
        sides[name] = {
            "days": median(day or LONGEST + 1 for day in days),
            "found": round(sum(day is not None for day in days) / len(days), 3),
            "each": days,
        }
    return sides


def _estimates(pool: Pool, shifts: int) -> Iterator[dict[str, float]]:
    """True and estimated accuracy on days of other mixes, calibrated on texts that are in none of them."""
    dice = np.random.default_rng(0)
    order = dice.permutation(len(pool.usual))
    golden, rest = np.array_split(order, 2)
    fitted = Calibration.fit(pool.usual.probabilities[golden].max(1), pool.usual.right[golden])
    held_out = replace(pool, usual=_take(pool.usual, rest))
    for seed in range(shifts):
        change = Change(moved=dice.uniform(0, 0.5), strange=dice.choice([0.0, dice.uniform(0, 0.2)]))
        day = World(held_out, 2_000, replace(USUAL, days=0.5), seed).day(change).answers
        estimated = fitted.estimate(day.probabilities.max(1)).value
        yield {
            "strange": round(float(change.strange), 3),
            "true": round(float(day.right.mean()), 4),
            "estimated": round(estimated, 4),
        }


def _sample(days: list[Day], seed: int) -> Columns:
    parts = zip(*((day.answers.probabilities, day.answers.characters, day.answers.true) for day in days), strict=True)
    together = Answers(*(np.concatenate(part) for part in parts))
    if len(together) <= MOST_REFERENCE_TEXTS:
        return columns(together)
    chosen = np.random.default_rng(seed).choice(len(together), MOST_REFERENCE_TEXTS, replace=False)
    return columns(_take(together, chosen))


def _take(answers: Answers, which: Any) -> Answers:
    return Answers(answers.probabilities[which], answers.characters[which], answers.true[which])
