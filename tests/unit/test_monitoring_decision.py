"""What follows from a drift, and accuracy in production."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from include.monitoring.accuracy import Calibration, live
from include.monitoring.decision import Known, Rules, decide_on_drift
from include.monitoring.drift import Comparison

TODAY = date(2026, 3, 30)
DRIFT = Comparison("label mix", 7, 1e-9, 1e-4, 1e-6, "card 41.0%, was 20.0%")
CALM = Comparison("label", 14, 0.2, 1e-4, 0.4, "card 21.0%, was 20.0%")


def known(*comparisons: Comparison, **given: Any) -> Known:
    usual: dict[str, Any] = {
        "today": TODAY,
        "last_alarm": None,
        "champion_since": TODAY - timedelta(days=60),
        "retrained": (),
        "new_rows": 500,
    }
    return Known(comparisons=comparisons, **usual | given)


def test_a_drift_with_something_to_learn_from_is_answered_by_a_new_model() -> None:
    found = decide_on_drift(known(DRIFT, CALM), Rules())
    assert found.verb == "retrain"
    assert found.reason == (
        "the traffic of the last 7 days has drifted (label mix: card 41.0%, was 20.0%), and there are 500 new labelled "
        "rows to learn from"
    )


@pytest.mark.parametrize(
    ("given", "verb", "reason"),
    [
        ({"new_rows": 49}, "label", "nothing to learn from: 49 new labelled rows of the 50"),
        ({"champion_since": TODAY - timedelta(days=13)}, "wait", "is given time until 2026-03-31"),
        ({"last_alarm": TODAY - timedelta(days=13)}, "wait", "is given time until 2026-03-31"),
        ({"retrained": (date(2026, 3, 1), date(2026, 3, 14))}, "wait", "used up until 2026-03-31"),
        ({"retrained": (date(2026, 2, 1), date(2026, 3, 14))}, "retrain", "500 new labelled rows"),
        ({"last_alarm": TODAY - timedelta(days=14)}, "retrain", "500 new labelled rows"),
    ],
)
def test_a_drift_waits_for_what_is_missing(given: dict[str, Any], verb: str, reason: str) -> None:
    found = decide_on_drift(known(DRIFT, **given), Rules())
    assert found.verb == verb
    assert reason in found.reason


def test_without_a_drift_nothing_is_done_and_the_oddest_test_is_named() -> None:
    assert (
        decide_on_drift(known(CALM), Rules()).reason == "no drift: the oddest of 1 tests, label of 14 days, has p = 0.2"
    )
    assert decide_on_drift(known(), Rules()).reason == "too few texts or days for a test"


def test_the_interval_of_the_live_accuracy_holds_whenever_one_looks() -> None:
    missed = 0
    for seed in range(200):
        right = np.random.default_rng(seed).random(400) < 0.85
        looks = [live(right[:count]) for count in (20, 50, 100, 200, 400)]
        missed += any(not one.low <= 0.85 <= one.high for one in looks)
    assert missed <= 200 * 0.05
    assert looks[-1].high - looks[-1].low < 0.2
    assert looks[0].high - looks[0].low > looks[-1].high - looks[-1].low
    assert (live([]).low, live([]).high, live([]).texts) == (0.0, 1.0, 0)


@pytest.mark.parametrize("then", [1, 0])
def test_the_interval_of_a_live_accuracy_that_changes_holds_its_mean(then: int) -> None:
    found = live([then] * 100 + [1 - then] * 60)
    assert found.low < found.value < found.high


def test_a_champion_that_is_too_sure_of_itself_is_not_estimated_by_its_own_word() -> None:
    dice = np.random.default_rng(0)
    said, true = dice.uniform(0.6, 1, 4_000), 0.3  # right as often as it says, less 0.3
    right = dice.random(4_000) < said - true
    estimated = Calibration.fit(said[:2_000], right[:2_000]).estimate(said[2_000:])
    assert estimated.value == pytest.approx(right[2_000:].mean(), abs=0.02)
    assert said[2_000:].mean() - estimated.value > 0.25
    assert estimated.low < estimated.value < estimated.high
    assert Calibration.fit([0.9], [True]).estimate([]).texts == 0
    with pytest.raises(ValueError, match="no rows with known labels"):
        Calibration.fit([], [])
