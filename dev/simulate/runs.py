"""What is simulated: decisions in the first week and after a year of promotions, and years of slow decline."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from dev.simulate.world import Setting, Worlds
from include.evaluation.gates import Thresholds

GOLDEN_ROWS = (50, 100, 200, 400, 600, 1000, 2000, 5000)
CLASSES = (2, 5, 10, 20, 77, 150)
DIFFERENCES = (-0.1, -0.06, -0.05, -0.04, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05)
ACCURACIES = {0.03: 0.96, 0.06: 0.92, 0.12: 0.84}
"""The first model's accuracy by discordance: models that err more differ more."""
WEEKS = 52
YEARS_ROWS = (100, 200, 400, 600, 1000, 2000)
YEARS_CLASSES = 5
OTHERS_CLASSES = (5, 20)  # for which models that differ less and more than usual are simulated, too
USUAL = 0.06
SEED = 20

Cell = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is simulated: golden sets per setting, challengers for each after a year, and years."""

    worlds: int = 1000
    challengers: int = 4
    years: int = 2000


def cells(setting: Setting, thresholds: Thresholds, size: Size, after: int, seed: int = SEED) -> list[Cell]:
    """How many challengers of each true difference are promoted, beside a champion after so many equal promotions."""
    place = [setting.golden_rows, setting.classes, round(1000 * setting.discordance), after]
    random = np.random.default_rng([seed, *place])
    count = (
        size.worlds if setting.classes <= 10 else size.worlds // 4
    )  # many classes take long, and no bound is on them
    worlds = Worlds.begin(setting, count, random)
    _promote_equal_ones(worlds, thresholds, random, after)
    worlds = worlds.take(np.repeat(np.arange(count), size.challengers))
    found = []
    for difference in DIFFERENCES:
        if not after:  # then it costs nothing to draw other golden rows for each
            worlds = Worlds.begin(setting, count * size.challengers, random)
        promoted, _ = worlds.decide(worlds.challengers(difference, random), thresholds)
        found.append(
            {
                "golden_rows": setting.golden_rows,
                "classes": setting.classes,
                "true_difference": difference,
                "discordance": max(setting.discordance, abs(difference)),
                "after_promotions": after,
                "decisions": len(promoted),
                "promoted": int(promoted.sum()),
            }
        )
    return found


def equal_ones_after_weeks(setting: Setting, thresholds: Thresholds, size: Size, weeks: int) -> float:
    """The share of equal challengers promoted after so many weeks of them, whether those were promoted or not."""
    random = np.random.default_rng([SEED, setting.golden_rows, weeks])
    worlds = Worlds.begin(setting, size.worlds * 2, random)
    for _ in range(weeks):
        new = worlds.challengers(0, random)
        worlds.promote(new, *worlds.decide(new, thresholds))
    promoted, _ = worlds.decide(worlds.challengers(0, random), thresholds)
    return float(promoted.mean())


def years(setting: Setting, thresholds: Thresholds, count: int, seed: int = SEED) -> Cell:
    """Years of weekly challengers that are each truly 0 to 1 point worse than the champion of their week."""
    random = np.random.default_rng([seed, setting.golden_rows])
    worlds = Worlds.begin(setting, count, random)
    ability = np.zeros(count)
    for _ in range(WEEKS):
        new_ability = ability - random.uniform(0, 0.01, count)
        new = worlds.challengers(new_ability, random)
        promoted, new_anchor = worlds.decide(new, thresholds)
        worlds.promote(new, promoted, new_anchor)
        ability = np.where(promoted, new_ability, ability)
    worse = ability < -2 * thresholds.max_accuracy_drop  # the best of them all is the first, at 0
    return {
        "golden_rows": setting.golden_rows,
        "years": count,
        "ended_worse_than_twice_the_margin": int(worse.sum()),
        "mean_drop": float(-ability.mean()),
    }


def everything(thresholds: Thresholds, size: Size, tell: Callable[[str], None]) -> dict[str, Any]:
    """All cells, the years, and the same with ``when_unsure`` "keep"; on all processors."""
    keep = thresholds.model_copy(update={"when_unsure": "keep"})
    settings = [
        Setting(rows, classes, discordance, accuracy)
        for rows in GOLDEN_ROWS
        for classes in CLASSES
        for discordance, accuracy in ACCURACIES.items()
        if rows >= classes and (discordance == USUAL or classes in OTHERS_CLASSES)
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        # The slowest first, so that no processor waits at the end.
        waiting = sorted(settings, key=lambda one: -one.classes * one.golden_rows)
        done = [pool.submit(cells, one, thresholds, size, after) for one in waiting for after in (0, WEEKS)]
        usual = [_usual(rows) for rows in YEARS_ROWS]
        kept = [pool.submit(cells, one, keep, size, 0) for one in usual]
        later = [pool.submit(equal_ones_after_weeks, one, keep, size, WEEKS) for one in usual]
        decline = {
            name: [pool.submit(years, one, which, size.years) for one in usual]
            for name, which in (("promote", thresholds), ("keep", keep))
        }
        found: list[Cell] = []
        for number, each in enumerate(done, start=1):
            found += each.result()
            if number % 50 == 0:
                tell(f"{number} of {len(done)} settings")
        by_rows = {name: [each.result() for each in of] for name, of in decline.items()}
        return {
            "cells": sorted(found, key=lambda cell: tuple(cell.values())),
            "years": next(year for year in by_rows["promote"] if year["golden_rows"] == 1000),
            "years_by_golden_rows": by_rows,
            "kept_when_unsure": {
                "cells": [cell for each in kept for cell in each.result()],
                "equal_ones_after_a_year": [
                    {"golden_rows": one.golden_rows, "promoted": each.result()}
                    for one, each in zip(usual, later, strict=True)
                ],
            },
        }


@dataclass(frozen=True)
class Bound:
    """What must hold with all gates together from 600 golden rows, and the worst that was found."""

    told: str
    limit: float
    worst: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.worst >= self.limit if self.at_least else self.worst <= self.limit


def bounds(found: dict[str, Any]) -> Iterator[Bound]:
    """The bounds: at the usual discordance or less, up to 10 classes, in the first week and after 52 promotions."""
    large = [
        cell for cell in found["cells"] if cell["golden_rows"] >= 600 and cell["classes"] <= 10 and _is_usual(cell)
    ]
    for told, difference, limit, at_least in (
        ("worse by 4 points: promoted in at most", -0.04, 0.05, False),
        ("as good: promoted in at least", 0.0, 0.9, True),
        ("better by 2 points: promoted in at least", 0.02, 0.98, True),
    ):
        shares = [share(cell) for cell in large if cell["true_difference"] == difference]
        yield Bound(told, limit, min(shares) if at_least else max(shares), at_least)
    year = found["years"]
    ended = year["ended_worse_than_twice_the_margin"] / year["years"]
    yield Bound("years at 1,000 golden rows that end more than 4 points below the best: at most", 0.05, ended, False)


def share(cell: Cell) -> float:
    """The decisions that promote."""
    return float(cell["promoted"] / cell["decisions"])


def _is_usual(cell: Cell) -> bool:
    return bool(cell["discordance"] == USUAL)


def _usual(rows: int) -> Setting:
    return Setting(rows, YEARS_CLASSES, USUAL, ACCURACIES[USUAL])


def _promote_equal_ones(worlds: Worlds, thresholds: Thresholds, random: np.random.Generator, times: int) -> None:
    """Draws equal challengers for each golden set until so many were promoted there."""
    promotions = np.zeros(len(worlds.rows), dtype=int)
    while (waiting := np.nonzero(promotions < times)[0]).size:
        some = worlds.take(waiting)
        new = some.challengers(0, random)
        promoted, new_anchor = some.decide(new, thresholds)
        some.promote(new, promoted, new_anchor)
        worlds.put(waiting, some)
        promotions[waiting] += promoted
