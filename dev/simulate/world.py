"""Many golden sets at once, on each of which a champion, its anchor and one challenger after another answer.

What is true of the models is known here, so it can be counted how often the gates are wrong. The verdicts come from the
gates' own code (``include.evaluation.gates``); this file only draws how many rows are fixed and broken.

**How models disagree.** Two trained models agree on most texts: many are easy for both, some too hard for both. So of
each class's golden rows a share of twice the *discordance* are open: a model as good as the first one is right there
every other time, a better one more often, independently of all others. The rest is answered alike by every model. Then
two such models differ on just the discordance's share of all rows. A difference that is larger than the discordance is
made up by rows of the rest, and makes the discordance as large as itself. The rows stay the same from week to week, and
so does the luck that a model has with them: that is what a year of decisions on one golden set is about.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from include.evaluation import gates
from include.evaluation.comparison import Pair
from include.evaluation.gates import Thresholds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Setting:
    """What a simulated golden set is like; ``accuracy`` is the first model's."""

    golden_rows: int
    classes: int
    discordance: float
    accuracy: float

    @property
    def class_rows(self) -> Ints:
        """(k,) golden rows of each class, as equal as can be."""
        return np.array([len(part) for part in np.array_split(np.arange(self.golden_rows), self.classes)])


@dataclass(frozen=True)
class Challengers:
    """How one challenger per golden set answers: (w, k) numbers of rows, golden sets by classes.

    ``open_right[a][c]`` are right and open, by whether anchor and champion are right there (1) or not (0); ``broken``
    and ``fixed`` are of the rows that all others answer alike.
    """

    open_right: list[list[Ints]]
    broken: Ints
    fixed: Ints


@dataclass
class Worlds:
    """w golden sets of one setting, with their champion and anchor, which in the first week are the same model.

    ``open[a][c]`` are the open rows by whether anchor and champion are right there (1) or not (0); ``easy`` and
    ``hard`` those that all models have right or wrong.
    """

    setting: Setting
    rows: Ints
    open: list[list[Ints]]
    easy: Ints
    hard: Ints
    anchor_is_champion: Bools

    @classmethod
    def begin(cls, setting: Setting, count: int, random: np.random.Generator) -> Self:
        """Draws the golden rows and the first champion's answers to them."""
        rows = np.broadcast_to(setting.class_rows, (count, setting.classes))
        undecided = random.binomial(rows, 2 * setting.discordance)
        right = random.binomial(undecided, 0.5)
        easy_share = (setting.accuracy - setting.discordance) / (1 - 2 * setting.discordance)
        easy = random.binomial(rows - undecided, easy_share)
        both = [[undecided - right, np.zeros_like(right)], [np.zeros_like(right), right]]
        return cls(setting, rows, both, easy, rows - undecided - easy, np.ones(count, dtype=bool))

    def take(self, index: Any) -> "Worlds":
        """Some of them, in this order; may be repeated."""
        return Worlds(
            self.setting,
            self.rows[index],
            [[part[index] for part in row] for row in self.open],
            self.easy[index],
            self.hard[index],
            self.anchor_is_champion[index],
        )

    def put(self, index: Ints, some: "Worlds") -> None:
        """Puts champions and anchors of some of them back."""
        for mine, theirs in zip(self.open, some.open, strict=True):
            for part, new in zip(mine, theirs, strict=True):
                part[index] = new
        self.anchor_is_champion[index] = some.anchor_is_champion

    def challengers(self, ability: Floats | float, random: np.random.Generator) -> Challengers:
        """Draws one challenger for each; ``ability`` is its true accuracy less the first champion's."""
        setting, shape = self.setting, (len(self.rows), 1)
        ability = np.broadcast_to(np.asarray(ability, dtype=float).reshape(-1, 1), shape)
        share = np.clip(0.5 + ability / (2 * setting.discordance), 0, 1)
        beyond = np.maximum(np.abs(ability) - setting.discordance, 0)
        easy, hard = setting.accuracy - setting.discordance, 1 - setting.accuracy - setting.discordance
        return Challengers(
            [[random.binomial(part, share) for part in row] for row in self.open],
            random.binomial(self.easy, np.where(ability < 0, beyond / easy, 0)),
            random.binomial(self.hard, np.where(ability > 0, np.minimum(beyond / max(hard, 1e-9), 1), 0)),
        )

    def beside(self, new: Challengers) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints], Ints]:
        """Counts by class: (fixed, broken) against the champion, the same against the anchor, and those right."""
        right = new.open_right
        champion = (
            right[0][0] + right[1][0] + new.fixed,
            self.open[0][1] - right[0][1] + self.open[1][1] - right[1][1] + new.broken,
        )
        anchor = (
            right[0][0] + right[0][1] + new.fixed,
            self.open[1][0] - right[1][0] + self.open[1][1] - right[1][1] + new.broken,
        )
        open_right = right[0][0] + right[0][1] + right[1][0] + right[1][1]
        return champion, anchor, open_right + self.easy - new.broken + new.fixed

    def decide(self, new: Challengers, thresholds: Thresholds) -> tuple[Bools, Bools]:
        """(w,) whether each challenger is promoted, and whether it is then the next anchor; by the gates' own code."""
        champion, anchor, right = self.beside(new)
        ask, rows, alone = _verdicts(thresholds), self.setting.golden_rows, self.anchor_is_champion
        of_champion, of_anchor = [[part.sum(axis=1) for part in pair] for pair in (champion, anchor)]
        passed = _each(ask.floor, rows, right.sum(axis=1))
        passed &= _each(ask.champion, rows, *of_champion, alone.astype(int))
        passed &= alone | _each(ask.anchor, rows, *of_anchor)
        passed &= ~self._has_failing_class(champion, anchor, right, thresholds)
        return passed, _each(ask.new_anchor, rows, *of_anchor)

    def _has_failing_class(
        self, champion: tuple[Ints, Ints], anchor: tuple[Ints, Ints], right: Ints, thresholds: Thresholds
    ) -> Bools:
        large = self.rows >= thresholds.min_class_rows
        classes = int(large[0].sum())
        # No class at or above the floor can fail, so only the others are looked at.
        where = np.nonzero(large & (right < thresholds.min_class_recall * self.rows))
        failing = np.zeros(len(right), dtype=bool)

        of_class = [values[where] for values in (self.rows, right, *champion, *anchor)]
        alone = self.anchor_is_champion[where[0]].astype(int)
        found = _each(_verdicts(thresholds).failing_class, classes, *of_class, alone)
        failing[where[0][found]] = True
        return failing

    def promote(self, new: Challengers, promoted: Bools, new_anchor: Bools) -> None:
        """Makes those challengers the champions that were promoted, and some of them the anchors, too.

        What they broke or fixed beyond the open rows is forgotten, which only makes them look less different.
        """
        now, next_anchor = promoted[:, None], (promoted & new_anchor)[:, None]
        for beside, (was_wrong, was_right) in zip(new.open_right, self.open, strict=True):
            is_right = beside[0] + beside[1]
            is_wrong = was_wrong + was_right - is_right
            was_wrong[:], was_right[:] = np.where(now, is_wrong, was_wrong), np.where(now, is_right, was_right)
        wrong, right = self.open[0][0] + self.open[1][0], self.open[0][1] + self.open[1][1]
        self.open = [
            [np.where(next_anchor, wrong, self.open[0][0]), np.where(next_anchor, 0, self.open[0][1])],
            [np.where(next_anchor, 0, self.open[1][0]), np.where(next_anchor, right, self.open[1][1])],
        ]
        self.anchor_is_champion = np.where(promoted, new_anchor, self.anchor_is_champion)


class _Verdicts:
    """The gates' verdicts by what they count, each asked for once."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds

    @cache  # noqa: B019 - there is one for all of a process's life
    def floor(self, rows: int, right: int) -> bool:
        return gates.accuracy_floor(rows, right, self._thresholds).passed

    @cache  # noqa: B019
    def champion(self, rows: int, fixed: int, broken: int, is_anchor: int) -> bool:
        return gates.non_inferiority(Pair(fixed, broken, rows), self._thresholds, is_anchor=bool(is_anchor)).passed

    @cache  # noqa: B019
    def anchor(self, rows: int, fixed: int, broken: int) -> bool:
        return gates.beside_anchor(Pair(fixed, broken, rows), self._thresholds).passed

    @cache  # noqa: B019
    def new_anchor(self, rows: int, fixed: int, broken: int) -> bool:
        return gates.beats_anchor(Pair(fixed, broken, rows))

    @cache  # noqa: B019
    def failing_class(
        self, classes: int, rows: int, right: int, fixed: int, broken: int, rose: int, fell: int, alone: int
    ) -> bool:
        pairs = [Pair(fixed, broken, rows)] + ([] if alone else [Pair(rose, fell, rows)])
        error = gates.class_error(classes, len(pairs))
        return right / rows < gates.class_threshold(rows, right, pairs, error, self._thresholds)


_verdicts = cache(_Verdicts)


def _each(verdict: Callable[..., bool], common: int, *counts: Ints) -> Bools:
    """A verdict for each set of counts; those that are the same are asked about once."""
    if not counts[0].size:
        return np.zeros(0, dtype=bool)
    sizes = tuple(int(part.max()) + 1 for part in counts)
    found, where = np.unique(np.ravel_multi_index(counts, sizes), return_inverse=True)
    columns = [part.tolist() for part in np.unravel_index(found, sizes)]
    return np.array([verdict(common, *each) for each in zip(*columns, strict=True)])[where]
