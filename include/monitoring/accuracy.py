"""How often the champion is right in production: with labels that come late, and without any."""
# ruff: noqa: TID253 - statistics on arrays are what this module is about

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


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
    of empirical Bernstein kind): looking every day, or until something is seen, does not make it wrong.

    Args:
        right: (texts,) whether each answer was its label, in the order in which the labels came.
        confidence: with which all the intervals of a life hold at once.
    """
    x = np.asarray(right, np.float64)
    if not len(x):
        return Accuracy(0.5, 0.0, 1.0, 0)
    count = np.arange(1, len(x) + 1)
    alpha = 1 - confidence
    mean = (0.5 + x.cumsum()) / (count + 1)
    before = np.concatenate([[0.5], mean[:-1]])
    variance = (0.25 + ((x - mean) ** 2).cumsum()) / (count + 1)
    variance_before = np.concatenate([[0.25], variance[:-1]])
    bet = np.minimum(np.sqrt(2 * log(2 / alpha) / (variance_before * count * np.log(1 + count))), 0.5)
    cost = (x - before) ** 2 * (-np.log1p(-bet) - bet)
    centre = (bet * x).cumsum() / bet.cumsum()
    half = (log(2 / alpha) + cost.cumsum()) / bet.cumsum()
    low, high = np.maximum(centre - half, 0).max(), np.minimum(centre + half, 1).min()
    return Accuracy(float(x.mean()), float(low), float(high), len(x))


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

    def estimate(self, confidence: ArrayLike) -> Accuracy:
        """Accuracy on texts without labels by the answers' confidence alone, for any number of classes.

        It is right as far as a confidence means in production what it meant on the golden rows, which texts of unknown
        labels break: the interval is that of sampling alone.
        """
        sure = np.interp(np.asarray(confidence, np.float64), self.confidence, self.right)
        if not len(sure):
            return Accuracy(0.5, 0.0, 1.0, 0)
        value, half = float(sure.mean()), 1.96 * sqrt(float((sure * (1 - sure)).sum())) / len(sure)
        return Accuracy(value, max(value - half, 0.0), min(value + half, 1.0), len(sure))
