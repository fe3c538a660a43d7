"""What is simulated: years without a drift, drifts, and accuracy without labels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import numpy as np

from dev.drift.pool import Answers, Pool
from dev.drift.rivals import RIVALS, Columns, Oddness, columns
from dev.drift.world import KINDS, Change, Day, Kind, World
from include.monitoring.accuracy import Calibration
from include.monitoring.assessment import NEVER_REFERENCE, REFERENCE_DAYS, reference_size
from include.monitoring.days import Days, join
from include.monitoring.drift import DAYS_A_YEAR, LEAST_DAYS, WINDOWS, Reference, assess
from include.monitoring.estimate import DAYS as ESTIMATED_DAYS
from include.monitoring.estimate import MOST_ERROR

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
    liveliest: int = 40  # champions of the liveliest world and the most traffic
    watched_days: int = 365  # each champion, after its reference
    shifts: int = 50


class Years:
    """Days without a drift: false alarms, and how odd each rival found each day."""

    def __init__(self, rivals: Mapping[str, Oddness] = RIVALS) -> None:
        self.days, self.rivals = 0, rivals
        self.alarms = dict.fromkeys(("ours", *rivals), 0)
        self.oddness: dict[str, list[float]] = {name: [] for name in rivals}

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
            for name, test in self.rivals.items():
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
    all_years, thresholds, no_drift = Years(), {}, []
    for texts in TEXTS:
        for number, kind in enumerate(KINDS):
            years = Years()
            share = size.no_drift_days // len(KINDS)
            for day in range(0, share, size.watched_days):
                years.add(pool, texts, kind, 1_000 * number + day, min(size.watched_days, share - day))
            no_drift.append({"texts_a_day": texts, "kind": kind.name, "days": years.days}
                            | {name: round(years.a_year(name), 2) for name in years.alarms})  # fmt: skip
            tell(f"{no_drift[-1]}")
            _merge(all_years, years)
            if kind == USUAL:  # that of the drifts
                thresholds[texts] = {name: years.threshold(name) for name in RIVALS}
    detection = []
    for drift in DRIFTS:
        for texts in TEXTS:
            found = [_found(pool, texts, drift, seed, thresholds[texts]) for seed in range(size.drifts)]
            detection.append({"kind": drift.name, "texts_a_day": texts, "drifts": len(found)} | _summed(found))
            tell(f"{detection[-1]}")
    return {
        "no_drift": {"model_days": all_years.days, "cells": no_drift}
        | {name: round(all_years.a_year(name), 2) for name in all_years.alarms},
        "data": pool.source,
        "young": _young(pool, size.young),
        "liveliest": liveliest(pool, size.liveliest, size.watched_days),
        "detection": detection,
        "estimated_accuracy": list(_estimates(pool, size.shifts)),
    }  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """What was aimed at, what was found, and whether it holds."""

    aim: str
    found: str
    holds: bool


def bounds(found: dict[str, Any]) -> Iterator[Bound]:
    """The aims of the drift test."""
    calm, young, cells = found["no_drift"], found["young"], found["detection"]
    worst = max(cell["ours"] for cell in calm["cells"])
    yield Bound("at most 1 false alarm a year", f"{calm['ours']} on {calm['model_days']:,} days", calm["ours"] <= 1)
    yield Bound("likewise in each kind of world and traffic", f"{worst} at worst", worst <= 1)
    yield Bound("likewise while references are young", f"{young['ours']} on {young['days']:,} days", young["ours"] <= 1)
    told = f"{found['liveliest']['ours']} of {found['liveliest']['champions']} champions on average"
    yield Bound("likewise of many champions, where days are liveliest", told, found["liveliest"]["ours"] <= 1)
    days = next(c["ours"]["days"] for c in cells if c["kind"] == DRIFTS[2].name and c["texts_a_day"] == 500)
    yield Bound("a 20 % label shift at 500 texts a day is found within 3 days", f"{days:g} days", days <= 3)
    first = sum(cell["ours"]["days"] == quickest(cell) <= LONGEST for cell in cells)
    yield Bound("no later than either rival in most cells", f"in {first} of {len(cells)}", 2 * first > len(cells))
    off = estimate_error(found["estimated_accuracy"])
    hidden = sum(one["hidden"] for one in found["estimated_accuracy"])
    told = f"{100 * off:.1f} points; hidden in {hidden} of {len(found['estimated_accuracy'])} weeks"
    yield Bound("an estimated accuracy that is shown is off by at most 2 points on average", told, off <= MOST_ERROR)


def quickest(cell: dict[str, Any]) -> float:
    """The fewest days of any side until a drift was found."""
    return float(min(cell[side]["days"] for side in ("ours", *RIVALS)))


def estimate_error(weeks: list[dict[str, Any]]) -> float:
    """Mean absolute error of the estimates that are not hidden; 0 if all are."""
    errors = [abs(one["true"] - one["estimated"]) for one in weeks if not one["hidden"]]
    return fmean(errors) if errors else 0.0


def _merge(into: Years, other: Years) -> None:
    into.days += other.days
    for name, count in other.alarms.items():
        into.alarms[name] += count
    for name, values in other.oddness.items():
        into.oddness[name] += values


def liveliest(pool: Pool, champions: int, days: int) -> dict[str, Any]:
    """False alarms of many champions where most are to be expected: each has a reference, and luck, of its own."""
    kind, texts = KINDS[-1], max(TEXTS)
    each = []
    for seed in range(champions):
        watched = Years({})
        watched.add(pool, texts, kind, 400_000 + seed, days)
        each.append(watched.alarms["ours"])
    return {
        "kind": kind.name,
        "texts_a_day": texts,
        "champions": champions,
        "ours": round(fmean(each) * DAYS_A_YEAR / days, 2),
        "each": each,
    }


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


def _estimates(pool: Pool, shifts: int) -> Iterator[dict[str, float | bool]]:
    """True and estimated accuracy of weeks of other mixes, calibrated on texts that are in none of them.

    An estimate is hidden where the drift test sees another confidence, as `include/monitoring/estimate.py` hides it.
    """
    dice = np.random.default_rng(0)
    golden, rest = np.array_split(dice.permutation(len(pool.usual)), 2)
    fitted = Calibration.fit(pool.usual.probabilities[golden].max(1), pool.usual.right[golden])
    held_out = replace(pool, usual=_take(pool.usual, rest))
    for seed in range(shifts):
        change = Change(moved=dice.uniform(0, 0.5), strange=dice.choice([0.0, dice.uniform(0, 0.2)]))
        world = World(held_out, 2_000, USUAL, 300_000 + seed)
        known = Reference(join([world.day().sums for _ in range(REFERENCE_DAYS)]))
        week = [world.day(change) for _ in range(ESTIMATED_DAYS)]
        alarms = [one.name for one in assess(known, join([day.sums for day in week])) if one.alarms]
        answers = _together(week)
        yield {
            "strange": round(float(change.strange), 3),
            "true": round(float(answers.right.mean()), 4),
            "estimated": round(fitted.estimate(answers.probabilities.max(1)).value, 4),
            "hidden": "confidence" in alarms,
        }


def _together(days: list[Day]) -> Answers:
    parts = zip(*((day.answers.probabilities, day.answers.characters, day.answers.true) for day in days), strict=True)
    return Answers(*(np.concatenate(part) for part in parts))


def _sample(days: list[Day], seed: int) -> Columns:
    together = _together(days)
    if len(together) <= MOST_REFERENCE_TEXTS:
        return columns(together)
    chosen = np.random.default_rng(seed).choice(len(together), MOST_REFERENCE_TEXTS, replace=False)
    return columns(_take(together, chosen))


def _take(answers: Answers, which: Any) -> Answers:
    return Answers(answers.probabilities[which], answers.characters[which], answers.true[which])
