"""Two models on the same rows: the difference of their accuracies, how sure it is, and what so many rows can show.

Each row gives a paired answer: *fixed* (only the new model is right), *broken* (only the old one is) or neither. The
interval is Wald's for paired proportions with half a row added to each cell of the paired table (Agresti and Min,
Statistics in Medicine 2005, 24:729). A closed form, so that the same rows give the same verdict everywhere, also far in
the tails, where resampling is coarse. Calculated over all outcomes for 30 to 2,000 rows and a discordance of 2 to 20 %,
a model as good as the other one is called worse at 99 % at most 1.01 times in a hundred, at 95 % at most 5.01 times.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, sqrt
from statistics import NormalDist
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

POWER = 0.8
"""A drop can be seen if it is shown four times in five."""


class Pair(NamedTuple):
    """What becomes of the old model's answers on rows that both models answered."""

    fixed: int
    broken: int
    rows: int

    @property
    def difference(self) -> float:
        """The new model's accuracy minus the old one's."""
        return (self.fixed - self.broken) / self.rows

    @property
    def discordance(self) -> float:
        """The share of rows on which exactly one is right; never 0, for among enough rows some would differ."""
        return (self.fixed + self.broken + 1) / (self.rows + 2)

    @classmethod
    def of(cls, labels: Sequence[str], new: Sequence[str], old: Sequence[str]) -> "Pair":
        """Counts it from the labels and both models' answers, all three in the same order."""
        pairs = [(one == label, other == label) for label, one, other in zip(labels, new, old, strict=True)]
        return cls(pairs.count((True, False)), pairs.count((False, True)), len(pairs))


class Comparison(BaseModel):
    """A challenger beside another model on the same golden rows; each end of the interval holds at ``confidence``."""

    model_config = ConfigDict(frozen=True)

    against: str
    rows: int
    fixed: int
    broken: int
    difference: float
    lower: float
    upper: float
    confidence: float
    smallest_visible_drop: float
    rows_for_margin: int | None


@lru_cache(maxsize=256)
def quantile(confidence: float) -> float:
    """How many standard errors a one-sided bound is away."""
    return NormalDist().inv_cdf(confidence)


def half_width(pair: Pair, confidence: float) -> float:
    """The distance from the difference to either end of its interval."""
    fixed, broken, rows = pair
    return quantile(confidence) * sqrt(fixed + broken + 1 - (fixed - broken) ** 2 / (rows + 2)) / rows


def tolerated_drop(half: float, margin: float) -> float:
    """The largest observed drop that is not called worse, for an interval that reaches so far to either side.

    Worse is what lies below 0 as a whole, unless it also lies above ``-margin``: then it is too little to matter.
    """
    return max(half, margin - half)


def smallest_visible_drop(rows: int, discordance: float, confidence: float, margin: float) -> float:
    """The smallest true drop that is called worse four times in five; 1 if not even a total one is.

    ``discordance`` is what was seen; a drop of so many rows breaks at least as many.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        drop = (low + high) / 2
        variance = max(discordance, drop) - drop**2
        half = quantile(confidence) * sqrt(variance / rows + 1 / rows**2)
        if tolerated_drop(half, margin) + quantile(POWER) * sqrt(variance / rows) > drop:
            low = drop
        else:
            high = drop
    return high


def rows_for(drop: float, discordance: float, confidence: float) -> int | None:
    """About how many rows show such a drop four times in five; None if no number does."""
    if drop <= 0:
        return None
    variance = max(discordance, drop) - drop**2
    return max(1, ceil((quantile(confidence) + quantile(POWER)) ** 2 * variance / drop**2))


def compare(pair: Pair, against: str, confidence: float, margin: float) -> Comparison:
    """All that is said about a pair. Raises ValueError if there are no rows."""
    if not pair.rows:
        raise ValueError(f"there are no rows on which to compare with the {against}")
    half = half_width(pair, confidence)
    return Comparison(
        against=against,
        **pair._asdict(),
        difference=pair.difference,
        lower=pair.difference - half,
        upper=pair.difference + half,
        confidence=confidence,
        smallest_visible_drop=smallest_visible_drop(pair.rows, pair.discordance, confidence, margin),
        rows_for_margin=rows_for(margin, pair.discordance, confidence),
    )


@lru_cache(maxsize=4096)
def least_right(rows: int, floor: float, error: float) -> int:
    """The fewest right rows that do not show a share of right answers below ``floor``, by the binomial distribution.

    A model whose true share is ``floor`` gets fewer than these with a probability below ``error``: of a handful of rows
    none, or next to none, has to be right.
    """
    from scipy.stats import binom  # type: ignore[import-untyped]  # scipy ships no types

    return int(binom.ppf(error, rows, floor)) if 0 < floor < 1 else round(rows * floor)
