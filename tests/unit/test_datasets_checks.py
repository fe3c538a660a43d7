import sys
import unicodedata

import pandas as pd
import pytest

from include.datasets.checks import _INVISIBLE, check_rows, normalise, text_keys


def judge(pairs: list[tuple[object, object]], **options: object) -> list[str]:
    frame = pd.DataFrame(
        [("f.csv", at, text, label, "", "") for at, (text, label) in enumerate(pairs, 1)],
        columns=["file", "row", "text", "label", "rule", "reason"],
    )
    defaults = {"allowed_labels": {"x", "y", "1"}, "max_characters": 100, "min_rows_per_label": 1}
    checked = check_rows(frame, **(defaults | options))  # type: ignore[arg-type]
    assert ((checked["rule"] == "") == (checked["reason"] == "")).all(), "every rejected row has a reason"
    return list(checked["rule"])


def test_good_rows_pass() -> None:
    assert judge([("a", "x"), ("b", "y")]) == ["", ""]


@pytest.mark.parametrize(
    ("text", "label", "rule"),
    [
        ("", "x", "text_empty"),
        (" \n\t", "x", "text_empty"),
        (None, "x", "text_empty"),
        ("\u200b", "x", "text_empty"),
        (3.5, "x", "text_not_a_string"),
        ("caf\udce9", "x", "wrong_encoding"),
        ("b\ufffd", "x", "wrong_encoding"),
        ("a\x00b", "x", "wrong_encoding"),
        ("a" * 101, "x", "text_too_long"),
        ("a", "", "label_missing"),
        ("a", None, "label_missing"),
        ("a", float("nan"), "label_missing"),
        ("a", "z", "label_unknown"),
        ("a", ["x", "y"], "label_not_single"),
        ("a", [], "label_not_single"),
        ("a", {"id": [1]}, "label_not_a_value"),
        ("a", pd.NaT, "label_missing"),
    ],
)
def test_a_bad_row_gets_its_rule(text: object, label: object, rule: str) -> None:
    assert judge([("good", "x"), (text, label)]) == ["", rule]


def test_numbers_as_labels_are_one_label_whatever_their_type() -> None:
    assert judge([("a", 1), ("b", 1.0), ("c", "1")]) == ["", "", ""]


def test_the_first_of_equal_texts_is_kept() -> None:
    assert judge([("Hello  World", "x"), ("hello world", "x"), ("HELLO\u00a0WORLD", "x")]) == ["", *["duplicate"] * 2]


def test_a_text_with_two_labels_is_rejected_each_time_it_comes() -> None:
    assert judge([("a", "x"), ("A", "y"), ("b", "x")]) == ["contradictory_label", "contradictory_label", ""]


def test_a_bad_row_does_not_make_a_good_one_contradictory() -> None:
    assert judge([("a", "x"), ("a", "nonsense")]) == ["", "label_unknown"]


def test_golden_and_known_rows_are_kept_out_and_relabelled_ones_let_in() -> None:
    known = pd.Series({"b": "x", "c": "x"})
    assert judge([("A", "x"), ("b", "x"), ("c", "y")], golden=pd.Series({"a": "x"}), known=known) == [
        "in_golden_set",
        "already_known",
        "",
    ]


def test_without_fixed_labels_a_rare_one_is_rejected() -> None:
    rows = [("a", "p"), ("b", "p"), ("c", "q")]
    assert judge(rows, allowed_labels=None, min_rows_per_label=2) == ["", "", "label_too_rare"]


def test_a_new_label_that_was_allowed_needs_enough_rows_too() -> None:
    known = pd.Series({"z": "x"})
    assert judge([("a", "x"), ("b", "y")], known=known, min_rows_per_label=2) == ["", "label_too_rare"]


def test_line_ends_become_one_kind() -> None:
    frame = pd.DataFrame(
        [("f", 1, "one\rtwo\r\nthree", "x", "", "")], columns=["file", "row", "text", "label", "rule", "reason"]
    )
    checked = check_rows(frame, allowed_labels=None, max_characters=100, min_rows_per_label=1)
    assert checked["text"][0] == "one\ntwo\nthree"


def test_normalise_folds_case_width_and_white_space() -> None:
    assert normalise("  \uff33\uff34RAße\t\u200bx ") == "strasse x"


def test_what_nobody_sees_is_what_unicode_calls_a_format_character() -> None:
    assert {chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code)) == "Cf"} == _INVISIBLE


def test_keys_are_equal_where_normalised_texts_are() -> None:
    texts = [
        "a b",
        "A  B",
        " a b",
        "a b ",
        "a\tb",
        "a\nb",
        "\x1ca b",
        "\uff41 b",
        "a\u200b b",
        "ab",
        "Ä",
        "ä",
        "STRASSE",
        "straße",
        "",
        " ",
    ]
    keys = text_keys(texts)
    for at, one in enumerate(texts):
        for other in range(len(texts)):
            assert (keys[at] == keys[other]) == (normalise(one) == normalise(texts[other])), (one, texts[other])
    assert (keys == 0).sum() == 2
