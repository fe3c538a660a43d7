"""What a user would take instead: Evidently's tests at their defaults, and a KS test a day.

Both compare each day with all texts of the reference. A day's oddness is made such that it grows with the drift, so
that any false-alarm rate can be had by another threshold.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from dev.drift.pool import Answers

Columns = dict[str, "pd.Series[float]"]
Oddness = Callable[[Columns, Columns], tuple[float, bool]]
"""Of a reference and a day: how odd the day is, and whether it alarms at the defaults."""


def evidently(reference: Columns, day: Columns) -> tuple[float, bool]:
    """Evidently's default test of each column (predicted label, confidence, length): drift if most columns drift.

    That is what its DataDriftPreset says. The oddness is the second largest of the columns', each in units of its
    threshold.
    """
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    scores, drifted = [], []
    for name, kind in (
        ("label", ColumnType.Categorical),
        ("confidence", ColumnType.Numerical),
        ("length", ColumnType.Numerical),
    ):
        test = get_stattest(reference[name], day[name], kind, None)
        result = test(reference[name], day[name], kind, None)
        p_value = test.name in ("ks", "chisquare", "z")
        scores.append(-np.log10(max(result.drift_score, 1e-300)) if p_value else result.drift_score / 0.1)
        drifted.append(bool(result.drifted))
    return float(sorted(scores)[-2]), sum(drifted) >= len(drifted) / 2


def daily_ks(reference: Columns, day: Columns) -> tuple[float, bool]:
    """A Kolmogorov-Smirnov test of the confidence, at 0.05."""
    from scipy.stats import ks_2samp  # type: ignore[import-untyped]  # scipy ships no types

    p = float(ks_2samp(reference["confidence"], day["confidence"]).pvalue)
    return -np.log10(max(p, 1e-300)), p < 0.05


RIVALS: dict[str, Oddness] = {"evidently": evidently, "daily_ks": daily_ks}


def columns(answers: Answers) -> Columns:
    """What the rivals see of some texts: predicted label, confidence and length."""
    return {
        "label": pd.Series(answers.probabilities.argmax(1)),
        "confidence": pd.Series(answers.probabilities.max(1)),
        "length": pd.Series(answers.characters),
    }
