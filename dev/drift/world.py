"""Traffic day by day: texts drawn from the pool, with weekdays, lasting ups and downs, odd days, and drifts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dev.drift.pool import Answers, Pool
from include.monitoring.days import Days, day_of

VOLUMES = np.array([1.1, 1.15, 1.15, 1.1, 1.05, 0.75, 0.7])  # by weekday, of the mean
VOLUME_SPREAD = 0.1


@dataclass(frozen=True)
class Kind:
    """How lively a world is where nothing drifts.

    Args:
        name: as it is shown.
        weekdays: standard deviation of a label's log share between weekdays.
        days: the same between days, beside that.
        lasting: correlation of a day's with the next day's.
        odd_days: share of days on which one label is four times as frequent.
    """

    name: str
    weekdays: float = 0.15
    days: float = 0.15
    lasting: float = 0.6
    odd_days: float = 0.0


KINDS = (
    Kind("calm", weekdays=0.05, days=0.05),
    Kind("usual"),
    Kind("odd days", odd_days=0.05),
    Kind("lively", weekdays=0.2, days=0.25, lasting=0.7),
)


@dataclass(frozen=True)
class Change:
    """What a day has that no day before had.

    Args:
        moved: share of the texts that come from three labels only.
        strange: share of the texts that are of labels unknown to the champion.
    """

    moved: float = 0.0
    strange: float = 0.0


@dataclass(frozen=True, eq=False)
class Day:
    """A day's answers, and the sums that the drift test keeps of them."""

    answers: Answers
    sums: Days


class World:
    """One model's traffic.

    Args:
        pool: what texts there are.
        texts: a day, on average.
        kind: how lively.
        seed: of its chance.
    """

    def __init__(self, pool: Pool, texts: int, kind: Kind, seed: int) -> None:
        self._pool, self._texts, self._kind = pool, texts, kind
        self._dice = np.random.default_rng(seed)
        labels = len(pool.labels)
        self._of_label = [np.flatnonzero(pool.usual.true == label) for label in range(labels)]
        some = np.array([len(texts) > 0 for texts in self._of_label])
        share = self._dice.permutation(1 / np.arange(1, labels + 1) ** 0.7)  # some labels are frequent, most are not
        self._base = np.where(some, np.log(share), -np.inf)
        self._weekdays = self._dice.normal(0, kind.weekdays, (7, labels))
        self._up = self._dice.normal(0, kind.days, labels)
        self._today = 0
        self._three = self._dice.choice(np.flatnonzero(some), min(3, int(some.sum())), replace=False)

    def day(self, change: Change = Change()) -> Day:
        """The next day."""
        dice, pool = self._dice, self._pool
        volume = VOLUMES[self._today % 7] * np.exp(dice.normal(0, VOLUME_SPREAD))
        texts = max(1, int(dice.poisson(self._texts * volume)))
        strange = int(dice.binomial(texts, change.strange)) if change.strange and len(pool.strange) else 0
        usual = self._draw(self._mix(change), texts - strange)
        self._today += 1
        chosen = [_take(pool.usual, usual), _take(pool.strange, dice.integers(0, max(len(pool.strange), 1), strange))]
        answers = Answers(*(np.concatenate(parts) for parts in zip(*chosen, strict=True)))
        return Day(answers, day_of(pool.labels, answers.probabilities, answers.characters))

    def _mix(self, change: Change) -> NDArray[np.float64]:
        kind, dice = self._kind, self._dice
        self._up = kind.lasting * self._up + np.sqrt(1 - kind.lasting**2) * dice.normal(0, kind.days, len(self._up))
        mix: NDArray[np.float64] = np.exp(self._base + self._weekdays[self._today % 7] + self._up)
        if dice.random() < kind.odd_days:
            mix[dice.integers(len(mix))] *= 4
        mix /= mix.sum()
        mix *= 1 - change.moved
        mix[self._three] += change.moved / len(self._three)
        return mix

    def _draw(self, mix: NDArray[np.float64], texts: int) -> NDArray[np.int64]:
        counts = self._dice.multinomial(texts, mix)
        drawn = [of[self._dice.integers(0, len(of), n)] for of, n in zip(self._of_label, counts, strict=True) if n]
        return np.concatenate(drawn) if drawn else np.empty(0, np.int64)


def _take(answers: Answers, which: NDArray[np.int64]) -> tuple[NDArray[np.generic], ...]:
    return answers.probabilities[which], answers.characters[which], answers.true[which]
