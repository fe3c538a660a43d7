"""The rules of preprocess_data on 200 labelled rows each, made up for these tests (quality/)."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest

from include.datasets.checks import text_keys
from include.ingestion import quality
from include.ingestion.quality import Cleaner, Row, hash_of, usual_lengths
from include.ingestion.screening import Screen
from include.ingestion.sources import Quality

CASES = Path(__file__).parent / "quality"
OFF = {"missing": False, "encoding": False, "boilerplate": False, "length": False, "near_duplicates": False}
ON = {
    "missing": {"missing": True},
    "encoding": {"encoding": True},
    "boilerplate": {"boilerplate": True},
    "length": {"length": True},
    "language": {"languages": ("en",)},
    "near_duplicate": {"near_duplicates": True},
}


def cases(rule: str) -> list[dict[str, str]]:
    with (CASES / f"{rule}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def row(text: str, label: str = "a") -> Row:
    return Row(hash_of(text), text, label, "desk", "2026-01-01T00:00:00Z", 0, 1)


def cleaner(rule: str, lengths: list[int]) -> Cleaner:
    return Cleaner(Quality(**(OFF | ON.get(rule, {}))), lengths)


@pytest.mark.parametrize("rule", ON)
def test_what_a_rule_finds_is_what_it_is_for(rule: str) -> None:
    found = cases(rule)
    assert len(found) == 200
    one = cleaner(rule, [len(case["text"]) for case in found])
    right = wrong = missed = 0
    for case in found:
        kept, _ = one.clean([row(case["text"])])
        touched = not kept or kept[0].text != case["text"]
        broken = case["broken"] == "1"
        right += touched and broken
        wrong += touched and not broken
        missed += broken and not touched
        if touched and broken and case["mended"]:
            assert [one.text for one in kept] == [case["mended"]]
    assert right / (right + wrong) >= 0.95, (right, wrong)
    assert right / (right + missed) >= 0.7, (right, missed)
    assert sum(one.left_out.values()) + sum(one.mended.values()) == right + wrong


@pytest.mark.parametrize("rule", ON)
def test_a_rule_that_is_off_changes_nothing(rule: str) -> None:
    off = cleaner("none of them", [])
    rows = [row(case["text"]) for case in cases(rule)]
    assert off.clean(rows) == (rows, [])


def test_every_row_that_is_left_out_has_a_rule_and_a_reason_and_every_mended_one_a_new_hash() -> None:
    one = Cleaner(Quality(languages=("en",)), [20] * 200)
    kept, broken = one.clean(
        [
            row("n/a"),
            row("the fÃ¼r sign is odd here and I want to know why"),
            row("where is my card " * 40),
            row("where is my card now?"),
        ]
    )
    assert [(each.rule, bool(each.reason)) for each in broken] == [("missing", True), ("length", True)]
    assert [each.text for each in kept] == ["the für sign is odd here and I want to know why", "where is my card now?"]
    assert [each.text_hash for each in kept] == [f"{key:016x}" for key in text_keys([each.text for each in kept])]
    assert one.examples["encoding: mended"] == [
        ("the fÃ¼r sign is odd here and I want to know why", "the für sign is odd here and I want to know why")
    ]


def test_almost_the_same_text_with_another_label_is_left_for_the_merge_to_settle() -> None:
    one = cleaner("near_duplicate", [])
    text = "I was charged twice for the same order last week"
    kept, broken = one.clean([row(text), row(f"{text}!"), row(f"{text}.", "b")])
    assert ([each.label for each in kept], len(broken)) == (["a", "b"], 1)


def test_the_language_of_a_text_with_a_very_long_word_is_told_in_one_look() -> None:
    german = "wo ist meine neue karte und warum ist die letzte rechnung noch nicht bezahlt worden"
    assert quality.language_of(f"{'-' * 200_000} {german}") == "de"


def test_of_few_texts_no_length_is_unusual() -> None:
    assert usual_lengths([10] * 99) == (0, 0)
    shortest, longest = usual_lengths([10] * 100)
    assert shortest < 10 < longest
    assert quality.is_missing("​") is True


@pytest.mark.parametrize("rule", ON)
def test_what_is_told_to_be_untouched_is_what_the_rules_hand_back_as_it_is(rule: str) -> None:
    texts = [case["text"] for name in ON for case in cases(name)]
    texts += ["\x1fauto-reply, I am away today", "\u00a0Out of office until May", "n/a\x1f", "\u200bnone of these", ""]
    one = cleaner(rule, list(map(len, texts)))
    found = Screen(one.quality, one.shortest, one.longest).untouched(pa.array(texts)).to_pylist()
    for text, untouched in zip(texts, found, strict=True):
        if untouched:
            assert [kept.text for kept in one.clean([row(text)])[0]] == [text]
    assert any(found) == (rule not in ("language", "near_duplicate")), "these look at each text"
