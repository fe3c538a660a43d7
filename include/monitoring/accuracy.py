"""How often the champion is right in production: with labels that come late, and without any."""
# ruff: noqa: TID253 - statistics on arrays are what this module is about

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LEAST_GOLDEN = 50  # rows
FOLDS = 5
MIXED = 10.0  # the interval of a mean that changes is narrowest, for its number of texts, at some hundred of them


@dataclass(frozen=True)
class Accuracy:
    """An accuracy and the interval that holds it."""

    value: float
    low: float
    high: float
    texts: int


def live(right: ArrayLike, confidence: float = 0.95) -> Accuracy:
    """Accuracy by labels of texts chosen at random, whenever one looks.

    The interval is one of a confidence sequence (Waudby-Smith and Ramdas 2024, doi:10.1093/jrsssb/qkad009, theorem 2,
    of empirical Bernstein kind): looking every day, or until something is seen, does not make it wrong. It takes for
    granted that the accuracy stays what it is. Where the answers say that it has changed, which empties that interval,
    it is a wider one of their mean, whatever it does (Robbins' normal mixture: Howard, Ramdas, McAuliffe and Sekhon
    2021, doi:10.1214/20-AOS1991).

    Args:
        right: (texts,) whether each answer was its label, in the order in which the labels came.
        confidence: with which all the intervals of a life hold at once.
    """
    x = np.asarray(right, np.float64)
    if not len(x):
        return Accuracy(0.5, 0.0, 1.0, 0)
    count = np.arange(1, len(x) + 1)
    alpha = (1 - confidence) / 2  # of each of the two
    mean = (0.5 + x.cumsum()) / (count + 1)
    before = np.concatenate([[0.5], mean[:-1]])
    variance = (0.25 + ((x - mean) ** 2).cumsum()) / (count + 1)
    variance_before = np.concatenate([[0.25], variance[:-1]])
    bet = np.minimum(np.sqrt(2 * log(2 / alpha) / (variance_before * count * np.log(1 + count))), 0.5)
    cost = (x - before) ** 2 * (-np.log1p(-bet) - bet)
    centre = (bet * x).cumsum() / bet.cumsum()
    half = (log(2 / alpha) + cost.cumsum()) / bet.cumsum()
    low, high = np.maximum(centre - half, 0).max(), np.minimum(centre + half, 1).min()
    value = x.mean()
    if not low <= value <= high:
        spread = len(x) / 4 + MIXED  # of answers that are 0 or 1 the variance is a quarter at most
        half = sqrt(spread * log(spread / (MIXED * alpha**2))) / len(x)
        low, high = max(value - half, 0), min(value + half, 1)
    return Accuracy(float(value), float(low), float(high), len(x))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often answers of each confidence were right on rows whose labels are known: (steps,) each, both rising."""

    confidence: Floats
    right: Floats

    @classmethod
    def fit(cls, confidence: ArrayLike, right: ArrayLike) -> "Calibration":
        """Of golden rows: (rows,) the answers' confidence, and whether they were right. Raises ValueError if none."""
        from sklearn.isotonic import IsotonicRegression

        sure, truth = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
        if not len(sure):
            raise ValueError("no rows with known labels: confidence cannot be calibrated")
        # One right and one wrong answer more at either end: no confidence is certainly right or wrong by few rows.
        sure, truth = np.append(sure, [0.0, 1.0, 1.0]), np.append(truth, [0.0, 1.0, 0.0])
        fitted = IsotonicRegression(out_of_bounds="clip").fit(sure, truth)
        return cls(np.asarray(fitted.X_thresholds_), np.asarray(fitted.y_thresholds_))

    def estimate(self, confidence: ArrayLike, counts: ArrayLike | None = None) -> Accuracy:
        """Accuracy on texts without labels by the answers' confidence alone, for any number of classes.

        ``counts`` says how many texts have each confidence; without it each is of one text.

        It is right as far as a confidence means in production what it meant on the golden rows, which texts of unknown
        labels break: the interval is that of sampling alone.
        """
        sure = np.interp(np.asarray(confidence, np.float64), self.confidence, self.right)
        many = np.ones(len(sure)) if counts is None else np.asarray(counts, np.float64)
        texts = float(many.sum())
        if not texts:
            return Accuracy(0.5, 0.0, 1.0, 0)
        value = float((many * sure).sum()) / texts
        half = 1.96 * sqrt(float((many * sure * (1 - sure)).sum())) / texts
        return Accuracy(value, max(value - half, 0.0), min(value + half, 1.0), int(texts))


def held_out_error(
    confidence: ArrayLike, right: ArrayLike, labels: Sequence[str], shifts: int = 50, seed: int = 0
) -> float:
    """By how much an estimate is off, as a mean over shifts of the label mix that it was not calibrated on.

    The rows are calibrated by the others, a fifth at a time; each shift draws as many rows with other frequencies of
    their labels, as they may change in production, and sets the estimate beside the truth.

    Args:
        confidence: (rows,) of the answers to golden rows.
        right: (rows,) whether they were right.
        labels: (rows,) the rows' labels.
        shifts: how many.
        seed: of their chance.

    Raises:
        ValueError: there are fewer than ``LEAST_GOLDEN`` rows.
    """
    sure, truth, names = np.asarray(confidence, np.float64), np.asarray(right, np.float64), np.asarray(labels)
    if len(sure) < LEAST_GOLDEN:
        raise ValueError(f"{len(sure)} golden rows are too few to say how good an estimate is: it takes {LEAST_GOLDEN}")
    dice = np.random.default_rng(seed)
    part = dice.permutation(len(sure)) % FOLDS
    told = np.empty(len(sure))
    for fold in range(FOLDS):
        fitted = Calibration.fit(sure[part != fold], truth[part != fold])
        told[part == fold] = np.interp(sure[part == fold], fitted.confidence, fitted.right)
    classes, of_row = np.unique(names, return_inverse=True)
    errors = []
    for _ in range(shifts):
        weights = dice.dirichlet(np.ones(len(classes)))[of_row]
        drawn = dice.choice(len(sure), len(sure), p=weights / weights.sum())
        errors.append(abs(float(told[drawn].mean() - truth[drawn].mean())))
    return float(np.mean(errors))
