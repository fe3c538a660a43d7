import numpy as np
import pytest

from include.evaluation.gates import Decision, Gate, Thresholds, decide, paired_interval
from include.settings import settings

THRESHOLDS = Thresholds(
    min_accuracy=0.7, max_accuracy_drop=0.02, gate_confidence=0.95, min_class_recall=0.5, min_class_rows=10
)


def noisy(labels: list[str], accuracy: float, seed: int) -> list[str]:
    """Predictions that are right with a probability, and the next class otherwise."""
    names = sorted(set(labels))
    wrong = {name: names[(index + 1) % len(names)] for index, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    return [label if rng.random() < accuracy else wrong[label] for label in labels]


def golden(rows: int, classes: int = 6) -> list[str]:
    return [f"class_{row % classes}" for row in range(rows)]


def gate(decision: Decision, name: str) -> Gate:
    return next(gate for gate in decision.gates if gate.name == name)


def break_rows(predictions: list[str], rows: int) -> list[str]:
    return ["something else"] * rows + predictions[rows:]


def test_first_model_that_is_good_enough_is_promoted_without_a_comparison() -> None:
    labels = golden(90)
    decision = decide(labels, noisy(labels, 0.9, 1), None, THRESHOLDS)
    assert decision.promote
    assert [gate.name for gate in decision.gates] == ["accuracy_floor", "class_recall"]
    assert "no champion" in decision.reason


def test_first_model_below_the_floor_is_rejected_with_the_number() -> None:
    labels = golden(60)
    decision = decide(labels, break_rows(labels, 24), None, THRESHOLDS)
    assert not decision.promote
    assert "36 of 60" in decision.reason
    assert "0.600" in decision.reason


@pytest.mark.parametrize("rows", [60, 150, 600, 2000])
def test_an_equally_good_challenger_is_seldom_rejected(rows: int) -> None:
    labels = golden(rows)
    passed = [
        gate(decide(labels, noisy(labels, 0.95, 2 * s), noisy(labels, 0.95, 2 * s + 1), THRESHOLDS), "non_inferiority")
        for s in range(100)
    ]
    assert sum(gate.passed for gate in passed) >= 92


@pytest.mark.parametrize("rows", [60, 150, 2000])
def test_the_same_model_again_is_promoted(rows: int) -> None:
    labels = golden(rows)
    predictions = noisy(labels, 0.95, 3)
    assert decide(labels, predictions, predictions, THRESHOLDS).promote


@pytest.mark.parametrize("rows", [30, 60, 150])
def test_a_challenger_trained_on_shuffled_labels_is_rejected(rows: int) -> None:
    labels = golden(rows)
    shuffled = list(np.random.default_rng(4).permutation(labels))
    decision = decide(labels, shuffled, noisy(labels, 0.95, 5), THRESHOLDS)
    assert not decision.promote
    assert not gate(decision, "non_inferiority").passed
    assert decision.reason.startswith("Rejected: accuracy_floor failed")


@pytest.mark.parametrize(("rows", "broken"), [(60, 5), (150, 8), (2000, 60)])
def test_a_slightly_worse_challenger_is_rejected_when_the_rows_can_show_it(rows: int, broken: int) -> None:
    labels = golden(rows)
    decision = decide(labels, break_rows(labels, broken), labels, THRESHOLDS)
    assert gate(decision, "accuracy_floor").passed
    assert not gate(decision, "non_inferiority").passed


def test_a_small_loss_that_a_large_set_shows_to_be_within_the_margin_passes() -> None:
    labels = golden(2000)
    decision = decide(labels, break_rows(labels, 16), labels, THRESHOLDS)
    assert decision.promote
    assert "not worse by more than the margin" in gate(decision, "non_inferiority").explanation


def test_three_rows_broken_and_none_fixed_is_no_proof_but_seven_are() -> None:
    labels = golden(60)
    three = gate(decide(labels, break_rows(labels, 3), labels, THRESHOLDS), "non_inferiority")
    assert three.passed
    assert "cannot show that it is worse" in three.explanation
    assert not gate(decide(labels, break_rows(labels, 7), labels, THRESHOLDS), "non_inferiority").passed


def test_the_bootstrap_is_decided_by_its_seed() -> None:
    labels = golden(150)
    new, old = noisy(labels, 0.9, 6), noisy(labels, 0.92, 7)
    assert paired_interval(labels, new, old, THRESHOLDS, seed=1) == paired_interval(
        labels, new, old, THRESHOLDS, seed=1
    )
    assert decide(labels, new, old, THRESHOLDS) == decide(labels, new, old, THRESHOLDS)


def test_the_interval_agrees_with_the_normal_approximation_on_many_rows() -> None:
    labels = golden(2000)
    interval = paired_interval(labels, noisy(labels, 0.9, 8), noisy(labels, 0.9, 9), THRESHOLDS)
    discordant = (interval.fixed + interval.broken) / interval.rows
    half = 1.645 * np.sqrt((discordant - interval.difference**2) / interval.rows)
    assert interval.lower == pytest.approx(interval.difference - half, abs=0.002)
    assert interval.upper == pytest.approx(interval.difference + half, abs=0.002)


def test_a_gate_passes_exactly_when_its_value_reaches_its_threshold() -> None:
    labels = golden(120)
    for seed in range(60):
        champion = noisy(labels, 0.4 + seed / 100, seed)
        decision = decide(labels, noisy(labels, 0.5 + seed / 130, seed + 1000), champion, THRESHOLDS)
        for each in decision.gates:
            assert each.passed == (each.value >= each.threshold - 1e-9), each


def test_a_class_that_falls_below_the_floor_rejects_and_is_named() -> None:
    labels = golden(240)
    challenger = ["class_0" if label == "class_3" else label for label in labels]
    decision = decide(labels, challenger, None, THRESHOLDS)
    assert not gate(decision, "class_recall").passed
    assert "'class_3' at 0.000" in decision.reason


def test_classes_with_few_golden_rows_are_not_gated() -> None:
    labels = golden(120) + ["rare"] * 9
    challenger = ["class_0" if label == "rare" else label for label in labels]
    assert gate(decide(labels, challenger, None, THRESHOLDS), "class_recall").passed


def test_without_any_class_of_enough_rows_there_is_no_class_gate() -> None:
    labels = golden(40, classes=10)
    assert [gate.name for gate in decide(labels, labels, None, THRESHOLDS).gates] == ["accuracy_floor"]


def test_a_class_that_the_champion_misses_too_does_not_block_an_equal_challenger() -> None:
    labels = golden(240)
    both = ["class_0" if label == "class_3" else label for label in labels]
    decision = decide(labels, both, both, THRESHOLDS)
    assert decision.promote


def test_a_class_below_the_floor_must_not_get_worse() -> None:
    labels = golden(240)
    rows = [row for row, label in enumerate(labels) if label == "class_3"]
    champion, challenger = list(labels), list(labels)
    for row in rows[12:]:
        champion[row] = "class_0"
    for row in rows[10:]:
        challenger[row] = "class_0"
    failed = gate(decide(labels, challenger, champion, THRESHOLDS), "class_recall")
    assert not failed.passed
    assert (failed.value, failed.threshold) == (0.25, 0.3)
    assert "the champion's own" in failed.explanation


def test_more_than_77_classes() -> None:
    labels = golden(1200, classes=100)
    decision = decide(labels, noisy(labels, 0.92, 10), noisy(labels, 0.9, 11), THRESHOLDS)
    assert decision.promote
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def test_rows_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths are \[2, 3\]"):
        decide(["a", "b"], ["a", "b", "a"], None, THRESHOLDS)
    with pytest.raises(ValueError, match="no rows"):
        decide([], [], None, THRESHOLDS)


def test_thresholds_come_from_the_settings() -> None:
    assert Thresholds.from_settings(settings()).max_accuracy_drop == settings().max_accuracy_drop


def test_a_first_model_below_the_floor_was_not_shown_worse_than_anything() -> None:
    labels = golden(60)
    assert decide(labels, break_rows(labels, 24), None, THRESHOLDS).shown_worse is False


def test_a_challenger_below_the_floor_beside_a_champion_was_shown_worse() -> None:
    labels = golden(60)
    assert decide(labels, break_rows(labels, 24), break_rows(labels, 22), THRESHOLDS).shown_worse


def test_a_challenger_whose_interval_lies_below_zero_was_shown_worse_and_a_promoted_one_never() -> None:
    labels = golden(600)
    worse = decide(labels, break_rows(labels, 90), labels, THRESHOLDS)
    assert (worse.promote, worse.shown_worse) == (False, True)
    small_drop = decide(labels, break_rows(labels, 6), labels, THRESHOLDS)
    assert (small_drop.promote, small_drop.shown_worse) == (True, False)


def test_a_class_that_fails_by_a_row_shows_too_little_and_one_that_is_gone_shows_worse() -> None:
    labels = golden(120)
    rare = [row for row, label in enumerate(labels) if label == "class_0"]

    def missing(rows: int) -> list[str]:
        return ["class_1" if row in rare[:rows] else label for row, label in enumerate(labels)]

    unsure = decide(labels, missing(11), missing(10), THRESHOLDS)
    assert (unsure.promote, unsure.shown_worse) == (False, False)
    gone = decide(labels, missing(20), missing(5), THRESHOLDS)
    assert (gone.promote, gone.shown_worse) == (False, True)
