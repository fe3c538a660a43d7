"""The champion's accuracy in production without labels: shown only where it is known how far off it may be."""
# ruff: noqa: TID253 - sums over arrays are what this module is about

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.engine import Engine

from include import objects
from include.evaluation.answers import FILE, read_answers
from include.monitoring.accuracy import Accuracy, Calibration, held_out_error
from include.monitoring.answers import BINS, DaySums
from include.monitoring.assessment import Assessment
from include.monitoring.checks import Check, Verdict, not_checked
from include.monitoring.traffic import Champion
from include.registry import ledger

MOST_ERROR = 0.02
MOST_DROP = 0.02  # below the accuracy on the golden rows
DAYS = 7


@dataclass(frozen=True)
class Estimate:
    """What is thought of the last days' answers.

    Args:
        accuracy: None if it is not shown.
        golden: the accuracy on the golden rows, if they are known.
        error: by how much estimates are off on shifts that they were not made for, if that is known.
        told: in one sentence what it is, or why it is not shown.
    """

    accuracy: Accuracy | None
    golden: float | None
    error: float | None
    told: str


def estimate(champion: Champion, kept: Sequence[DaySums], assessment: Assessment, engine: Engine) -> Estimate:
    """The accuracy of a champion's last seven days, by its confidence and what that meant on the golden rows."""
    golden = golden_answers(champion, engine)
    if golden is None:
        return Estimate(None, None, None, "not estimated: what the champion answered to the golden rows is not kept")
    confidence, right, labels = golden
    accuracy = float(np.mean(right))
    try:
        error = held_out_error(confidence, right, labels)
    except ValueError as why:
        return Estimate(None, accuracy, None, f"not estimated: {why}")
    if error > MOST_ERROR:
        return Estimate(
            None, accuracy, error,
            f"not shown: on shifted mixes of golden rows it is off by {100 * error:.1f} points, and more than "
            f"{100 * MOST_ERROR:.0f} are not worth showing",
        )  # fmt: skip
    if any(one.name == "confidence" for one in assessment.alarms):
        told = "not shown: the confidence has drifted, so it need not mean what it meant on the golden rows"
        return Estimate(None, accuracy, error, told)
    recent = kept[-DAYS:]
    counts = np.sum([one.confidence for one in recent], axis=0) if recent else np.zeros(BINS)
    if not counts.sum():
        return Estimate(None, accuracy, error, "not estimated: nothing was asked in the last days")
    middle = (np.arange(BINS) + 0.5) / BINS
    found = Calibration.fit(confidence, right).estimate(middle, counts)
    told = (
        f"{found.value:.1%} by the confidence of {found.texts:,} answers since {recent[0].day}; such estimates are off "
        f"by {100 * error:.1f} points on average where the label mix shifts, and by more where labels are new"
    )
    return Estimate(found, accuracy, error, told)


def golden_answers(champion: Champion, engine: Engine) -> tuple[list[float], list[bool], list[str]] | None:
    """Confidence, whether it was right, and the label, of a champion's answers to the golden rows; None if not kept."""
    for entry in ledger.moves_to(engine, champion.model, champion.version):
        if entry.verb == "promote" and (uri := ledger.left_by(entry.dag_run_id, FILE)):
            rows = read_answers(io.BytesIO(objects.read_bytes(uri)), "challenger")
            return list(rows["confidence"]), list(rows["label"] == rows["predicted"]), list(rows["label"])
    return None


def accuracy_checks(found: Estimate, live: Accuracy) -> list[Check]:
    """What is known of the accuracy in production, beside that on the golden rows.

    One that is surely lower than on the golden rows, by more than ``MOST_DROP``, fails. The ends of the intervals are
    checks that nothing fails, to be plotted.
    """
    checks = []
    if found.golden is not None:
        checks.append(
            _value("accuracy.golden", found.golden, "of the golden rows the champion had right when promoted")
        )
    if found.error is not None:
        told = "mean error of the estimate on held-out shifts of the label mix"
        shown: Verdict = "passed" if found.error <= MOST_ERROR else "not_checked"
        checks.append(_value("accuracy.estimated_error", found.error, told, MOST_ERROR, shown))
    checks += _interval("accuracy.estimated", found.accuracy, found.golden, found.told)
    told = f"{live.value:.1%} of {live.texts} answers that people labelled at random were right"
    if live.texts:
        return [*checks, *_interval("accuracy.live", live, found.golden, told)]
    return [*checks, not_checked("accuracy.live", "no label was asked for at random (POST /sample, /feedback)")]


def _interval(name: str, accuracy: Accuracy | None, golden: float | None, told: str) -> list[Check]:
    if accuracy is None:
        return [not_checked(name, told)]
    threshold = None if golden is None else golden - MOST_DROP
    worse = threshold is not None and accuracy.high < threshold
    return [
        _value(name, accuracy.value, told, threshold, "failed" if worse else "passed"),
        _value(f"{name}_low", accuracy.low, "lower end of its interval"),
        _value(f"{name}_high", accuracy.high, "upper end of its interval"),
    ]


def _value(name: str, value: float, told: str, threshold: float | None = None, verdict: Verdict = "passed") -> Check:
    return Check(name=name, value=value, threshold=threshold, verdict=verdict, told=told)
