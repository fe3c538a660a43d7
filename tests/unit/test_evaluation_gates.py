import numpy as np
import pytest

from include.evaluation.counting import Known
from include.evaluation.gates import Decision, Gate, Thresholds, decide
from include.evaluation.words import new_rows
from include.settings import settings

THRESHOLDS = Thresholds(
    min_accuracy=0.7, max_accuracy_drop=0.02, gate_confidence=0.99, min_class_recall=0.5, min_class_rows=10
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
    decision = decide(labels, noisy(labels, 0.9, 1), None, None, THRESHOLDS)
    assert decision.promote
    assert [gate.name for gate in decision.gates] == ["accuracy_floor", "class_recall"]
    assert "no champion" in decision.reason


def test_first_model_below_the_floor_is_rejected_with_the_number() -> None:
    labels = golden(60)
    decision = decide(labels, break_rows(labels, 24), None, None, THRESHOLDS)
    assert not decision.promote
    assert "36 of 60" in decision.reason
    assert "60.0 %" in decision.reason


@pytest.mark.parametrize("rows", [60, 150, 600, 2000])
def test_an_equally_good_challenger_is_seldom_rejected(rows: int) -> None:
    labels = golden(rows)
    decisions = [
        decide(labels, noisy(labels, 0.95, 2 * s), noisy(labels, 0.95, 2 * s + 1), None, THRESHOLDS) for s in range(100)
    ]
    assert sum(decision.promote for decision in decisions) >= 88
    assert sum(bool(decision.shown_worse) for decision in decisions) <= 4


@pytest.mark.parametrize("rows", [60, 150, 2000])
def test_the_same_model_again_is_promoted(rows: int) -> None:
    labels = golden(rows)
    predictions = noisy(labels, 0.95, 3)
    assert decide(labels, predictions, predictions, None, THRESHOLDS).promote


@pytest.mark.parametrize("rows", [30, 60, 150])
def test_a_challenger_trained_on_shuffled_labels_is_rejected(rows: int) -> None:
    labels = golden(rows)
    shuffled = list(np.random.default_rng(4).permutation(labels))
    decision = decide(labels, shuffled, noisy(labels, 0.95, 5), None, THRESHOLDS)
    assert not decision.promote
    assert not gate(decision, "non_inferiority").passed
    assert decision.reason.startswith("Rejected: accuracy_floor failed")


@pytest.mark.parametrize(("rows", "broken"), [(60, 5), (150, 8), (2000, 60)])
def test_a_slightly_worse_challenger_is_rejected_when_the_rows_can_show_it(rows: int, broken: int) -> None:
    labels = golden(rows)
    decision = decide(labels, break_rows(labels, broken), labels, None, THRESHOLDS)
    assert gate(decision, "accuracy_floor").passed
    assert not gate(decision, "non_inferiority").passed


def test_a_small_loss_that_a_large_set_shows_to_be_within_the_margin_passes() -> None:
    labels = golden(2000)
    decision = decide(labels, break_rows(labels, 16), labels, None, THRESHOLDS)
    assert decision.promote
    assert "not worse by more than the 2.0 points" in gate(decision, "non_inferiority").explanation


def test_three_rows_broken_and_none_fixed_are_no_proof_beside_the_champion_but_seven_are() -> None:
    labels = golden(60)
    three = gate(decide(labels, break_rows(labels, 3), labels, labels, THRESHOLDS), "non_inferiority")
    assert three.passed
    assert "can be chance on so few rows" in three.explanation
    assert not gate(decide(labels, break_rows(labels, 7), labels, labels, THRESHOLDS), "non_inferiority").passed


def test_while_the_champion_is_the_anchor_the_stricter_confidence_counts() -> None:
    labels = golden(60)
    assert decide(labels, break_rows(labels, 4), labels, labels[:1] * 60, THRESHOLDS).promote
    alone = decide(labels, break_rows(labels, 4), labels, None, THRESHOLDS)
    assert "anchor" not in [gate.name for gate in alone.gates]
    assert not alone.promote
    assert alone.shown_worse is False, "5 % of the equal ones are refused so, whose rows must not be blamed"
    assert decide(labels, break_rows(labels, 7), labels, None, THRESHOLDS).shown_worse
    lenient = THRESHOLDS.model_copy(update={"gate_confidence": 0.8})
    assert not decide(labels, break_rows(labels, 2), labels, None, lenient).promote, "a deployment may set it lower"


def test_a_gate_passes_exactly_when_its_value_reaches_its_threshold() -> None:
    labels = golden(120)
    for seed in range(60):
        champion = noisy(labels, 0.4 + seed / 100, seed)
        decision = decide(labels, noisy(labels, 0.5 + seed / 130, seed + 1000), champion, None, THRESHOLDS)
        for each in decision.gates:
            assert each.passed == (each.value >= each.threshold - 1e-9), each


def test_a_class_that_falls_below_the_floor_rejects_and_is_named() -> None:
    labels = golden(240)
    challenger = ["class_0" if label == "class_3" else label for label in labels]
    decision = decide(labels, challenger, None, None, THRESHOLDS)
    assert not gate(decision, "class_recall").passed
    assert "worst is 'class_3' with 0 of 40" in decision.reason


def test_classes_with_few_golden_rows_are_not_gated() -> None:
    labels = golden(120) + ["rare"] * 9
    challenger = ["class_0" if label == "rare" else label for label in labels]
    assert gate(decide(labels, challenger, None, None, THRESHOLDS), "class_recall").passed


def test_without_any_class_of_enough_rows_there_is_no_class_gate() -> None:
    labels = golden(40, classes=10)
    assert [gate.name for gate in decide(labels, labels, None, None, THRESHOLDS).gates] == ["accuracy_floor"]


def test_a_class_that_the_champion_misses_too_does_not_block_an_equal_challenger() -> None:
    labels = golden(240)
    both = ["class_0" if label == "class_3" else label for label in labels]
    decision = decide(labels, both, both, None, THRESHOLDS)
    assert decision.promote


def test_a_class_below_the_floor_must_not_be_shown_to_get_worse() -> None:
    labels = golden(240)
    rows = [row for row, label in enumerate(labels) if label == "class_3"]

    def right(count: int) -> list[str]:
        return ["class_0" if row in rows[count:] else label for row, label in enumerate(labels)]

    by_two = gate(decide(labels, right(10), right(12), right(12), THRESHOLDS), "class_recall")
    assert by_two.passed, "two rows can be chance"
    failed = gate(decide(labels, right(4), right(16), right(16), THRESHOLDS), "class_recall")
    assert not failed.passed
    assert failed.value == 0.1 < failed.threshold
    assert "'class_3' with 4 of 40" in failed.explanation


def test_more_than_77_classes() -> None:
    labels = golden(1200, classes=100)
    decision = decide(labels, noisy(labels, 0.92, 10), noisy(labels, 0.9, 11), None, THRESHOLDS)
    assert decision.promote
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def test_rows_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths are \[2, 3\]"):
        decide(["a", "b"], ["a", "b", "a"], None, None, THRESHOLDS)
    with pytest.raises(ValueError, match="no rows"):
        decide([], [], None, None, THRESHOLDS)


def test_thresholds_come_from_the_settings() -> None:
    assert Thresholds.from_settings(settings()).max_accuracy_drop == settings().max_accuracy_drop


def test_a_first_model_below_the_floor_was_not_shown_worse_than_anything() -> None:
    labels = golden(60)
    assert decide(labels, break_rows(labels, 24), None, None, THRESHOLDS).shown_worse is False


def test_a_challenger_below_the_floor_beside_a_champion_was_shown_worse() -> None:
    labels = golden(60)
    assert decide(labels, break_rows(labels, 24), break_rows(labels, 22), None, THRESHOLDS).shown_worse


def test_a_challenger_whose_interval_lies_below_zero_was_shown_worse_and_a_promoted_one_never() -> None:
    labels = golden(600)
    worse = decide(labels, break_rows(labels, 90), labels, None, THRESHOLDS)
    assert (worse.promote, worse.shown_worse) == (False, True)
    small_drop = decide(labels, break_rows(labels, 6), labels, None, THRESHOLDS)
    assert (small_drop.promote, small_drop.shown_worse) == (True, False)


def test_a_class_that_is_gone_shows_worse() -> None:
    labels = golden(120)
    rare = [row for row, label in enumerate(labels) if label == "class_0"]

    def missing(rows: int) -> list[str]:
        return ["class_1" if row in rare[:rows] else label for row, label in enumerate(labels)]

    assert decide(labels, missing(11), missing(10), missing(10), THRESHOLDS).promote
    gone = decide(labels, missing(20), missing(5), missing(5), THRESHOLDS)
    assert (gone.promote, gone.shown_worse) == (False, True)


def test_a_class_that_declined_slowly_is_seen_beside_the_anchor() -> None:
    labels = golden(400, classes=10)
    rows = [row for row, label in enumerate(labels) if label == "class_3"]

    def right(count: int) -> list[str]:
        return ["class_0" if row in rows[count:] else label for row, label in enumerate(labels)]

    assert gate(decide(labels, right(18), right(20), right(20), THRESHOLDS), "class_recall").passed
    assert not gate(decide(labels, right(18), right(20), labels, THRESHOLDS), "class_recall").passed


@pytest.mark.parametrize("classes", [5, 20, 77])
def test_classes_refuse_few_equal_challengers_however_hard_they_are(classes: int) -> None:
    labels = [f"class_{row % classes}" for row in range(20 * classes)]
    refused = 0
    for seed in range(100):
        challenger, champion = noisy(labels, 0.55, 2 * seed), noisy(labels, 0.55, 2 * seed + 1)
        refused += not gate(decide(labels, challenger, champion, None, THRESHOLDS), "class_recall").passed
    assert refused <= 4, f"at most 2 % of them; by recall alone it was {100 * (1 - 0.6**classes):.0f} %"


def test_a_champion_may_be_followed_by_a_decline_that_the_anchor_stops() -> None:
    labels = golden(600)
    champion, challenger = break_rows(labels, 10), break_rows(labels, 14)
    assert decide(labels, challenger, champion, champion, THRESHOLDS).promote
    stopped = decide(labels, challenger, champion, labels, THRESHOLDS)
    assert [gate.name for gate in stopped.gates if not gate.passed] == ["anchor"]
    assert stopped.reason.startswith("Rejected: anchor failed, against the anchor on the same 600 rows")


def test_the_first_model_is_the_first_anchor_and_only_a_clear_best_or_other_labels_are_the_next() -> None:
    labels = golden(600)
    worse = break_rows(labels, 40)
    assert decide(labels, labels, None, None, THRESHOLDS).new_anchor
    assert not decide(labels, worse, worse, None, THRESHOLDS).new_anchor
    assert decide(labels, labels, worse, None, THRESHOLDS).new_anchor
    assert decide(labels, labels, labels, worse, THRESHOLDS).new_anchor, "it is the anchor that has to be beaten"
    assert not decide(labels, labels, worse, labels, THRESHOLDS).new_anchor
    names = sorted(set(labels))
    assert decide(labels, labels, labels, labels, THRESHOLDS, known=Known([*names, "new"], names, names)).new_anchor
    assert not decide(labels, labels, labels, labels, THRESHOLDS, known=Known(names, names, names)).new_anchor


def test_rows_that_came_with_the_upload_compare_nothing_and_have_a_floor() -> None:
    labels = golden(200)
    established = [row < 120 for row in range(200)]
    spoilt = ["nothing" if not judges else label for label, judges in zip(labels, established, strict=True)]
    swapped = decide(labels, labels, spoilt, None, THRESHOLDS, established=established)
    assert swapped.comparisons[0].rows == 120
    assert swapped.comparisons[0].fixed == 0, "what came with the upload does not speak for the challenger"
    assert (gate(swapped, "new_rows").value, swapped.promote) == (1, True)
    refused = decide(labels, spoilt, labels, None, THRESHOLDS, established=established)
    assert gate(refused, "non_inferiority").passed
    assert not gate(refused, "new_rows").passed
    assert refused.shown_worse
    assert "0 are right" in gate(refused, "new_rows").explanation


def test_a_single_new_row_is_said_to_show_nothing() -> None:
    told = (
        "of the 1 golden row that came with this upload 1 is right (100.0 %); so few cannot show that less than 70.0 %"
    )
    assert new_rows(1, 1, 0, 0.7).startswith(told)
    assert "fewer than 33 would show that less" in new_rows(59, 58, 33, 0.7)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_a_handful_of_new_rows_refuses_only_if_next_to_none_is_right(right: int) -> None:
    labels = golden(125)
    challenger = [*labels[: 120 + right], *["wrong"] * (5 - right)]
    decision = decide(labels, challenger, labels, None, THRESHOLDS, established=[row < 120 for row in range(125)])
    assert gate(decision, "new_rows").passed == (right > 0)


def test_labels_that_the_champion_lacks_are_not_compared_and_have_a_floor() -> None:
    labels = golden(200, classes=5)
    names = sorted(set(labels))
    known = Known(names, names[:-1], None)
    champion = ["class_0" if label == "class_4" else label for label in labels]
    good = decide(labels, labels, champion, None, THRESHOLDS, known=known)
    assert good.comparisons[0].rows == 160
    assert gate(good, "new_labels").passed
    assert good.promote
    bad = decide(labels, champion, champion, None, THRESHOLDS, known=known)
    assert gate(bad, "non_inferiority").value == 0
    assert not gate(bad, "new_labels").passed
    assert "'class_4' with 0 of 40" in bad.reason


def test_a_label_that_the_challenger_has_lost_counts_against_it() -> None:
    labels = golden(200, classes=5)
    names = sorted(set(labels))
    lost = ["class_0" if label == "class_4" else label for label in labels]
    decision = decide(labels, lost, labels, None, THRESHOLDS, known=Known(names[:-1], names, None))
    assert {gate.name for gate in decision.gates if not gate.passed} == {"non_inferiority", "class_recall"}


def test_a_class_without_golden_rows_is_named_whatever_is_decided() -> None:
    labels = golden(60)
    known = Known([*sorted(set(labels)), "silent"], None, None)
    for champion in (None, labels):
        decision = decide(labels, labels, champion, None, THRESHOLDS, known=known)
        assert decision.not_judged == ["silent"]
        assert "Not judged, for they have no golden rows: 'silent'" in decision.reason


def test_nothing_established_lets_nothing_in_and_blames_nobody() -> None:
    labels = golden(60)
    decision = decide(labels, labels, labels, None, THRESHOLDS, established=[False] * 60)
    assert (decision.promote, decision.shown_worse) == (False, False)
    assert "none of the golden rows is established" in decision.reason


def test_when_unsure_keep_lets_no_lower_score_in_that_few_rows_cannot_judge() -> None:
    labels = golden(100)
    keep = THRESHOLDS.model_copy(update={"when_unsure": "keep"})
    lower = break_rows(labels, 1)
    assert decide(labels, lower, labels, labels, THRESHOLDS).promote
    kept = decide(labels, lower, labels, labels, keep)
    assert (kept.promote, kept.shown_worse) == (False, False)
    assert "BERT_WHEN_UNSURE=keep" in kept.reason
    assert decide(labels, labels, lower, lower, keep).promote
    many = golden(2000)
    assert decide(many, break_rows(many, 6), many, many, keep).promote, "shown to be within the margin is not unsure"


def test_where_a_person_decides_what_the_rows_cannot_judge_is_the_persons_to_judge() -> None:
    labels = golden(100)
    manual = THRESHOLDS.model_copy(update={"promotion": "manual", "when_unsure": "keep"})
    unsure = decide(labels, break_rows(labels, 1), labels, labels, manual)
    assert unsure.promote
    assert unsure.reason.startswith("Awaiting approval: 99 of 100 golden rows are right")
    assert "not shown worse" in unsure.reason
    worse = decide(labels, break_rows(labels, 30), labels, labels, manual)
    assert (worse.promote, worse.shown_worse) == (False, True)
    assert worse.reason.startswith("Rejected: ")


def test_each_comparison_says_how_small_a_drop_it_would_show_and_what_it_takes() -> None:
    labels = golden(600)
    decision = decide(labels, noisy(labels, 0.97, 1), noisy(labels, 0.97, 2), noisy(labels, 0.97, 3), THRESHOLDS)
    champion, anchor = decision.comparisons
    assert (champion.against, anchor.against) == ("champion", "anchor")
    assert anchor.smallest_visible_drop < champion.smallest_visible_drop, "less confidence shows more"
    assert f"would show a drop of {100 * champion.smallest_visible_drop:.1f} points" in decision.reason
    assert champion.rows_for_margin is not None
    assert champion.rows_for_margin > 600
    assert "golden rows." in decision.reason


def test_thresholds_and_decisions_of_earlier_versions_can_be_read() -> None:
    old = {"min_accuracy": 0.7, "max_accuracy_drop": 0.02, "gate_confidence": 0.95, "min_class_recall": 0.5}
    assert Thresholds.model_validate(old | {"min_class_rows": 10}).gate_confidence == 0.95
    decision = Decision.model_validate({"promote": True, "gates": [], "reason": "Promoted.", "shown_worse": False})
    assert (decision.new_anchor, decision.comparisons, decision.not_judged) == (False, [], [])
