"""Whether the champion's traffic has changed, with a stated rate of false alarms.

Each day the last 3, 7, 14 and 28 days are compared with the reference: the label mix as a whole, each label, and each
measure (confidence, length). Every test gets an equal part of the false alarms that are allowed in a day. By the union
bound, and because expectations add up whatever depends on what, the expected number of false alarms in a year is then
at most the stated one, for any traffic, if each single test keeps its level (measured in docs/monitoring.md). For that
three things are counted that a plain two-sample test takes for nothing, and that make it alarm every week:

- the reference is a sample, too;
- days have ups and downs of their own, beyond those of drawing texts (quasi-likelihood: McCullagh and Nelder,
  Generalized Linear Models, 2nd ed., section 4.5), which are estimated from the reference's days and shrunk, label by
  label, towards a prior (moderated t: Smyth 2004, doi:10.2202/1544-6115.1027);
- one day's ups and downs last into the next. How long is seen in each day's difference from the same weekday a week
  before (seasonal differences: Box, Jenkins, Reinsel and Ljung, Time Series Analysis, 5th ed., chapter 9).

No single day alarms: without its oddest day a window has to stand out still.
"""
# ruff: noqa: TID253 - statistics on arrays are what this module is about

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from include.monitoring.days import Days, Floats

WINDOWS = (3, 7, 14, 28)
LEAST_DAYS = WEEK = 7
DAYS_A_YEAR = 365.0
PRIOR_LASTING, PRIOR_PAIRS = 0.7, 20.0  # correlation of a day's ups and downs with the next day's
LEAST_LASTING, MOST_LASTING = 0.3, 0.9
PRIOR_DAYS = 4.0
PRIOR_LABEL_SPREAD = 0.15  # a label's share is that much larger or smaller on one day than on another
PRIOR_MEASURE_SPREAD = 0.05  # of the texts' own standard deviation
LEAST_EXPECTED = 5.0  # labels with fewer texts in a window are one: a count's tail is not normal below that
WITHOUT_ODDEST = 0.01
WHOLE_MIX, EACH_LABEL = "label mix", "label"


@dataclass(frozen=True)
class Comparison:
    """One test of one window.

    Args:
        name: "label mix", "label", or a measure.
        window: days.
        p: how often a window of undisturbed traffic looks as odd.
        level: below which it alarms.
        without_oddest: ``p`` without the window's oddest day.
        told: what has changed most, with its numbers.
    """

    name: str
    window: int
    p: float
    level: float
    without_oddest: float
    told: str

    @property
    def alarms(self) -> bool:
        """Whether it stands out, and not for one day's sake."""
        return self.p < self.level and self.without_oddest < WITHOUT_ODDEST


def assess(reference: "Reference", recent: Days, rate: float = 1.0, least_texts: int = 100) -> list[Comparison]:
    """Compares the last days with the reference, the clearest change first.

    Args:
        reference: made of days that the champion of today has answered.
        recent: the days since, of which the last windows are tested.
        rate: false alarms allowed in a year.
        least_texts: windows with fewer are not tested.

    Returns:
        A test for each window that has come and for each thing that is tested.
    """
    level = rate / DAYS_A_YEAR / (len(WINDOWS) * (2 + len(recent.measures)))
    found = []
    for window in WINDOWS:
        last = recent[-window:]
        if len(last) == window and last.texts.sum() >= least_texts:
            found += _tests(reference, last, level)
    return sorted(found, key=lambda test: test.p)


class Reference:
    """What days say about those that are to come: 28 of them if there are. Raises ValueError if fewer than 7."""

    def __init__(self, days: Days) -> None:
        if len(days) < LEAST_DAYS:
            raise ValueError(f"a reference of {len(days)} days is too short: it takes {LEAST_DAYS}")
        self.days = days
        self.texts = float(days.texts.sum())
        self.shares = days.label_sums.sum(0) / self.texts
        self.means = days.measure_sums.sum(0) / self.texts
        # A probability of 0.9 varies less than a count: its variance over its mean is below 1.
        self.thinness = _ratio(days.label_squares.sum(0), days.label_sums.sum(0), 1.0)
        self.variances = np.maximum(days.measure_squares.sum(0) / self.texts - self.means**2, 1e-12)

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of a spread: days that are alike tell less of it."""
        alike = self.lasting**2
        return len(self.days) * (1 - alike) / (1 + alike) - 1 + PRIOR_DAYS

    @cached_property
    def label_spread(self) -> Floats:
        """(labels,) squared: by how much of itself a label's share differs between days, beyond drawing texts."""
        return self._seen_spread / self._seen_share

    @cached_property
    def _seen_share(self) -> float:
        """Of the days' ups and downs: around the mean of the same days there is less of them."""
        return 1 - _mean_of(len(self.days), self.lasting)

    @cached_property
    def _seen_spread(self) -> Floats:
        expected = self.days.texts[:, None] * self.shares
        beyond = _root_residuals(self.days.label_sums, expected) ** 2 - self.thinness
        each = np.maximum(_ratio(beyond.sum(0), expected.sum(0), 0.0), 0)
        together = max(float(beyond.sum() / max(expected.sum(), 1e-12)), 0.0)
        return self._shrunk((each + together) / 2, PRIOR_LABEL_SPREAD**2)

    @cached_property
    def lasting(self) -> float:
        """How much a day's ups and downs are like the next day's, as far as drawing texts lets it be seen.

        It is seen in what has changed since the same weekday: in the days themselves, their weekdays hide it.
        """
        residuals = _root_residuals(self.days.label_sums, self.days.texts[:, None] * self.shares)
        changes = residuals[WEEK:] - residuals[:-WEEK]
        pairs = max(len(changes) - 1, 0)
        squares = float((changes**2).sum()) / max(len(changes), 1)
        beyond = squares - 2 * float(self.thinness.sum())
        if beyond <= 0:
            return PRIOR_LASTING
        found = float((changes[1:] * changes[:-1]).sum()) / max(pairs, 1) / beyond
        told = (beyond / squares) ** 2 * pairs * self.dense_freedom
        lasting = (told * found + PRIOR_PAIRS * PRIOR_LASTING) / (told + PRIOR_PAIRS)
        return float(np.clip(lasting, LEAST_LASTING, MOST_LASTING))

    @cached_property
    def measure_spread(self) -> Floats:
        """(measures,) squared: by how much a measure's mean differs between days, beyond drawing texts."""
        drawn = self.variances / np.maximum(self.days.texts, 1)[:, None]
        residuals = _ratio(self.days.measure_sums, self.days.texts[:, None], self.means) - self.means
        each = np.maximum((residuals**2 - drawn).mean(0), 0) / self._seen_share
        return self._shrunk(each, PRIOR_MEASURE_SPREAD**2 * self.variances)

    @cached_property
    def dense_freedom(self) -> float:
        """Of how many independent parts a day's deviation of the whole mix is like the sum; labels move together."""
        daily = self.oddness(self.days)
        most = max(len(self.shares) - 1.0, 1.0)
        variance = float(daily.var(ddof=1))
        found = 2 * float(daily.mean()) ** 2 / variance if variance > 0 else most
        return float(np.clip(found / 2, 1.0, most))  # halved: few days say little about a variance

    def wander(self, days: int) -> float:
        """Variance of the difference of so many days' mean and the reference's, in that of one day's ups and downs."""
        return _mean_of(days, self.lasting) + _mean_of(len(self.days), self.lasting)

    def oddness(self, days: Days) -> Floats:
        """(days,) mean over the labels of the squared deviation of a single day, about 1 where nothing is odd."""
        expected = days.texts[:, None] * self.shares
        drawing = self.thinness * (1 + days.texts[:, None] / self.texts)
        variance = drawing + expected * self._seen_spread
        found: Floats = (_root_residuals(days.label_sums, expected) ** 2 / variance).mean(1)
        return found

    def z(self, window: Days) -> Floats:
        """(labels,) by how many standard deviations the window's shares differ; of labels with few texts the sum."""
        texts = float(window.texts.sum())
        seen, expected = window.label_sums.sum(0), texts * self.shares
        few = expected < LEAST_EXPECTED
        spread, thinness = self.label_spread, self.thinness
        if few.any():
            weights = expected[few] / max(expected[few].sum(), 1e-12)
            seen = np.append(seen[~few], seen[few].sum())
            expected = np.append(expected[~few], expected[few].sum())
            spread = np.append(spread[~few], (weights * spread[few]).sum())
            thinness = np.append(thinness[~few], (weights * thinness[few]).sum())
        drawing = thinness * (1 + texts / self.texts)
        found: Floats = _root_residuals(seen, expected) / np.sqrt(
            drawing + expected * spread * self.wander(len(window))
        )
        return found

    def measure_z(self, window: Days) -> Floats:
        """(measures,) the same of the measures' means."""
        texts = float(window.texts.sum())
        drawing = self.variances * (1 / texts + 1 / self.texts)
        found: Floats = (window.measure_sums.sum(0) / texts - self.means) / np.sqrt(
            drawing + self.measure_spread * self.wander(len(window))
        )
        return found

    def _shrunk(self, found: Floats, prior: Floats | float) -> Floats:
        days = len(self.days) - 1
        shrunk: Floats = (PRIOR_DAYS * prior + days * found) / (PRIOR_DAYS + days)
        return shrunk


def _tests(reference: Reference, window: Days, level: float) -> list[Comparison]:
    every = _ps(reference, window)
    rest = window[np.arange(len(window)) != reference.oddness(window).argmax()]
    without = _ps(reference, rest) if rest.texts.sum() else dict.fromkeys(every, 1.0)
    return [
        Comparison(name, len(window), p, level, without[name], _told(reference, window, name))
        for name, p in every.items()
    ]


def _ps(reference: Reference, window: Days) -> dict[str, float]:
    from scipy.special import fdtrc, stdtr  # type: ignore[import-untyped]  # scipy ships no types

    z = reference.z(window)
    freedom = min(reference.dense_freedom, max(len(z) - 1.0, 1.0))
    found = {
        WHOLE_MIX: float(fdtrc(freedom, freedom * reference.freedom / 3, _mean_square(z))),
        EACH_LABEL: min(1.0, len(z) * 2 * float(stdtr(reference.freedom, -np.abs(z).max()))),
    }
    each = 2 * stdtr(reference.freedom, -np.abs(reference.measure_z(window)))
    return found | {name: float(p) for name, p in zip(window.measures, each, strict=True)}


def _told(reference: Reference, window: Days, name: str) -> str:
    texts = float(window.texts.sum())
    if name not in (WHOLE_MIX, EACH_LABEL):
        at = window.measures.index(name)
        return f"mean {name} {window.measure_sums[:, at].sum() / texts:.3f}, was {reference.means[at]:.3f}"
    shares = window.label_sums.sum(0) / texts
    moved = np.abs(np.sqrt(shares) - np.sqrt(reference.shares)).argsort()[::-1][: 3 if name == WHOLE_MIX else 1]
    return ", ".join(f"{window.labels[at]} {shares[at]:.1%}, was {reference.shares[at]:.1%}" for at in moved)


def _root_residuals(seen: Floats, expected: Floats) -> Floats:
    """Counts on the scale of their square roots, where drawing gives a variance of 1 (Anscombe 1948)."""
    residuals: Floats = 2 * (np.sqrt(seen + 0.375) - np.sqrt(expected + 0.375))
    return residuals


@lru_cache
def _mean_of(days: int, lasting: float) -> float:
    """Variance of the mean of so many days' ups and downs, in that of one day's."""
    apart = np.arange(1, days)
    return float((1 + 2 * ((1 - apart / days) * lasting**apart).sum()) / days)


def _mean_square(z: Floats) -> float:
    return float((z**2).mean())


def _ratio(over: Floats, under: Floats, otherwise: Floats | float) -> Floats:
    found: Floats = np.where(under > 0, over / np.where(under > 0, under, 1), otherwise)
    return found
