from decimal import Decimal

import pytest

from include.datasets.labels import Vocabulary, canonical, lookalikes, written


def meanings(*labels: str, allowed: list[str] | None = None) -> dict[str, str]:
    """Each label's meaning; for one that is none the rule."""
    found = Vocabulary(labels, allowed).meanings
    return {text: meaning.rule or meaning.label for text, meaning in found.items()}


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", "1.00", " 1 ", Decimal("1.00"), [1], ["1.0"], {"label": 1}])
def test_one_is_one_whatever_its_type(value: object) -> None:
    text = written(value)
    assert isinstance(text, str)
    assert canonical(text) == "1"


@pytest.mark.parametrize("label", ["007", "1.5", "1.50", "-2", "1e3", "0x1", "v1.0", "01.0"])
def test_other_numbers_stay_as_they_are(label: str) -> None:
    assert canonical(label) == label


def test_minus_one_means_no_label_beside_whole_numbers_and_words() -> None:
    assert meanings("-1", "0", "1")["-1"] == "label_missing"
    assert meanings("-1", "red", "007")["-1"] == "label_missing"
    assert meanings("-1", "-2", "0")["-1"] == "-1"
    assert meanings("-1", "0.5")["-1"] == "-1"
    assert meanings("-1", "0", allowed=["-1", "0"])["-1"] == "-1"


def test_a_joined_cell_is_several_labels_only_if_one_of_them_is_a_label_by_itself() -> None:
    assert meanings("a|b", "b;c", "c|d", "|e|", "a", "b")["a|b"] == "label_not_single"
    assert meanings("a|b", "c|d")["a|b"] == "a|b"
    assert meanings("a|b", allowed=["a"])["a|b"] == "label_not_single"
    assert meanings("a/b", "a", "b")["a/b"] == "a/b"


def test_an_allowed_spelling_wins_over_the_usual_one() -> None:
    assert meanings("true", "TRUE", "1.0", allowed=["True", "1"]) == {"true": "True", "TRUE": "True", "1.0": "1"}
    assert meanings("null", "-", "N/A", allowed=["null", "x"]) == {
        "null": "null", "-": "label_missing", "N/A": "label_missing",
    }  # fmt: skip


def test_a_spelling_that_is_not_allowed_is_unknown() -> None:
    assert meanings("Billing", "billing", allowed=["billing"]) == {"Billing": "label_unknown", "billing": "billing"}


def test_lookalikes_differ_by_case_or_a_letter_and_are_no_numbers() -> None:
    assert lookalikes(["Refund", "refund"]) == [("Refund", "refund")]
    assert lookalikes(["refund", "refnd", "refunds", "refynd"])
    assert lookalikes(["tier 1", "tier 2", "10", "11", "in", "on", "payment", "delivery"]) == []


def test_lookalikes_of_many_labels_are_found_in_time() -> None:
    assert lookalikes([f"label number {at:05d} of many" for at in range(20_000)]) == []


def test_ratings_and_taxonomies_of_label_studio_are_their_value_and_spans_are_no_label() -> None:
    assert written([{"rating": 1}]) == "1"
    assert written({"rating": 4}) == "4"
    assert written([{"taxonomy": [["A", "x"]]}]) == "x"
    assert written({"x": 1, "y": 0}) == "x"
    span = written({"start": 0, "end": 1})
    assert not isinstance(span, str)
    assert span.rule == "label_not_a_value"
