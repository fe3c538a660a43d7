"""What is checked of a day: quality, distributions and anomalies, by Evidently where it has the metric; odd days."""

import random
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy.engine import Engine

from include import lake, objects
from include.monitoring import profiles, results
from include.monitoring.checks import (
    CUT,
    EMPTY_TEXTS,
    LABEL_MIX,
    LANGUAGE_MIX,
    LENGTH,
    MISSING_LABELS,
    OUTLYING_LENGTHS,
    PIECES_PER_WORD,
    REJECTED,
    REPEATED,
    UNKNOWN,
    UNUSUAL,
    Check,
    anomalies,
    distributions,
    quality,
)
from include.monitoring.profiles import SOURCES, Name, Profiles, Sample, Tokenizer, profile, tokenizer_at

pytest_plugins = ["tests.unit.registry_services"]

DAY = date(2026, 3, 30)
REPOSITORY = Path(__file__).parents[2]
WORDS = [
    "please",
    "tell",
    "me",
    "where",
    "my",
    "new",
    "card",
    "is",
    "and",
    "why",
    "the",
    "refund",
    "of",
    "the",
    "last",
    "order",
    "has",
    "not",
    "come",
    "yet",
]


def texts(count: int, seed: int = 0, words: list[str] = WORDS, length: int = 12) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(words, k=dice.randint(length // 2, length))) for _ in range(count)]


def sample(
    count: int = 200, source: Name = "predictions", *, seed: int = 0, labels: str = "card refund", **more: Any
) -> Sample:
    dice = random.Random(seed)
    frame = pd.DataFrame({"text": texts(count, seed), "label": dice.choices(labels.split(), k=count)}, dtype=object)
    if source == "predictions":
        frame = frame.assign(
            probability=[dice.uniform(0.8, 0.99) for _ in range(count)], cut=False, latency_ms=5.0, text_hash="h"
        )
    counts = (
        {"files": 2, "rows_in": count, "rejected": 0, "unreadable": 0, "duplicates": 0} if source == "uploads" else {}
    )
    frame = frame.assign(**{name: values for name, values in more.items() if name in frame})
    return Sample(source, count, frame, counts | more.get("counts", {}))


def day(*samples: Sample, tokenizer: Tokenizer | None = None) -> Profiles:
    given = {one.source: one for one in samples}
    return {name: profile(given[name] if name in given else sample(0, name), tokenizer) for name in SOURCES}


PAST = [day(sample(seed=seed), sample(150, "uploads", seed=seed)) for seed in range(1, 15)]


def checked(*samples: Sample, past: list[Profiles] = PAST, tokenizer: Tokenizer | None = None) -> dict[str, Check]:
    now = day(*samples, tokenizer=tokenizer)
    found = [
        *quality(samples, now, past),
        *distributions(samples, now, past, ["card", "refund"]),
        *anomalies(samples, now, past),
    ]
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def failed(*samples: Sample, **options: Any) -> set[str]:
    return {name for name, one in checked(*samples, **options).items() if one.verdict == "failed"}


def test_a_usual_day_passes_every_check() -> None:
    found = checked(sample(seed=99), sample(150, "uploads", seed=98))
    assert failed(sample(seed=99), sample(150, "uploads", seed=98)) == set()
    assert len([one for one in found.values() if one.verdict == "passed"]) >= 20
    assert found["predictions.rows"].value == 200
    assert found["uploads.label_mix"].threshold == 0.3


def test_each_fault_is_found_by_its_own_check() -> None:
    usual = texts(200, 5)
    long = [" ".join([text] * 8) for text in usual]
    german = texts(
        200,
        5,
        [
            "wo",
            "ist",
            "meine",
            "neue",
            "karte",
            "und",
            "warum",
            "ist",
            "die",
            "letzte",
            "rechnung",
            "noch",
            "nicht",
            "bezahlt",
            "worden",
        ],
    )
    assert failed(sample(text=["", "  ", None, *usual[3:]])) == {"predictions.empty_texts"}
    assert failed(sample(text=[usual[0]] * 120 + usual[120:], labels="card")) >= {
        "predictions.duplicates", "predictions.repeated", "predictions.classes",
    }  # fmt: skip
    assert failed(sample(cut=[True] * 20 + [False] * 180)) == {"predictions.cut"}
    assert failed(sample(text=long)) >= {"predictions.length", "predictions.outlying_lengths"}
    assert "predictions.language_mix" in failed(sample(text=german))
    assert failed(sample(probability=0.3)) == {"predictions.confidence", "predictions.unsure"}
    assert failed(sample(latency_ms=500.0)) == {"predictions.latency_ms"}
    assert failed(sample(4_000)) == {"predictions.volume"}
    assert failed(sample(150, "uploads", labels="parcel parcel parcel card")) == {
        "uploads.label_mix",
        "uploads.new_labels",
    }
    assert failed(sample(150, "uploads", label=[None] * 9 + ["card", "refund", "refund"] * 47)) == {
        "uploads.missing_labels"
    }
    refused = {"rejected": 60, "duplicates": 70, "unreadable": 1}
    assert failed(sample(150, "uploads", counts=refused)) == {
        "uploads.rejected", "uploads.duplicates", "uploads.unreadable_files",
    }  # fmt: skip
    assert failed(sample(0)) == {"predictions.rows", "predictions.volume"}


def test_what_was_found_is_told_in_words() -> None:
    found = checked(sample(150, "uploads", labels="parcel parcel parcel card"))
    assert found["uploads.new_labels"].told == "labels that the champion does not know: parcel"
    assert "most has changed parcel, by +" in found["uploads.label_mix"].told
    assert (
        checked(sample(0))["predictions.rows"].told == "nothing came, and on each of the 14 days before something did"
    )


@pytest.mark.parametrize("rows", [0, 1, 10])
@pytest.mark.parametrize("past", [[], PAST], ids=["first day", "after two weeks"])
def test_few_rows_are_no_fault_and_break_nothing(rows: int, past: list[Profiles]) -> None:
    found = checked(sample(rows), sample(rows, "uploads"), sample(rows, "training_examples"), past=past if rows else [])
    assert {name for name, one in found.items() if one.verdict == "failed" and "volume" not in name} == set()
    assert any(one.verdict == "not_checked" for one in found.values())


@pytest.mark.parametrize("source", SOURCES)
def test_columns_that_are_empty_and_days_of_one_class_break_nothing(source: Name) -> None:
    nothing = pd.Series([None] * 60, dtype=object)
    found = checked(sample(60, source, text=nothing, label=nothing))
    assert found[f"{source}.empty_columns"].verdict == "failed"
    assert found[f"{source}.classes"].verdict == "failed"
    one_class = checked(sample(60, source, labels="card"))
    assert one_class[f"{source}.classes"].told == "all rows have one label, card"
    frame = sample(60, source)
    more = Sample(source, 60, frame.frame.assign(country="de", number=1), frame.counts)
    assert checked(more).keys() == checked(frame).keys(), "a new column changes nothing"


def test_a_log_without_texts_is_checked_by_what_it_has() -> None:
    found = checked(sample(text=None))
    assert found["predictions.empty_texts"].told == "the prediction log has no texts (BERT_LOG_TEXTS)"
    assert found["predictions.empty_columns"].verdict == "passed"
    assert "predictions.length" not in found
    assert found["predictions.confidence"].verdict == "passed"


def test_words_that_the_tokenizer_does_not_know_are_found(tiny_bert: Path, file_lake: str) -> None:
    uri = objects.upload(tiny_bert, lake.model("m", "1"))
    with tokenizer_at(uri) as tokenizer:
        assert tokenizer is not None
        known = sample(text=texts(200, words=["where", "is", "my", "card", "a", "lost", "refund"]))
        assert checked(known, tokenizer=tokenizer)["predictions.unknown_tokens"].value == 0
        found = checked(sample(text=texts(200, words=["where", "is", "zzyzx"])), tokenizer=tokenizer)
    assert found["predictions.unknown_tokens"].verdict == "failed"
    with tokenizer_at(lake.model("m", "2")) as missing:
        assert missing is None


def test_profiles_are_kept_and_those_of_the_last_four_weeks_are_what_is_usual(file_lake: str) -> None:
    for ago in (1, 28, 29):
        profiles.keep("m", date.fromordinal(DAY.toordinal() - ago), day(sample(10 * ago)))
    profiles.keep("m", DAY, day(sample(5)))
    assert [one["predictions"].rows for one in profiles.past("m", DAY)] == [280, 10]
    assert profiles.kept("m", DAY)["predictions"].rows == 5
    assert profiles.kept("m", date(2020, 1, 1))["uploads"].rows == 0


def test_results_are_entered_once_and_told_when_they_begin_to_fail(engine: Engine) -> None:
    def entered(on: int, **verdicts: str) -> list[str]:
        found = [
            Check(name=name, value=1.0, threshold=None, verdict=verdict, told="…")  # type: ignore[arg-type]
            for name, verdict in verdicts.items()
        ]
        results.enter(engine, "model", date(2026, 3, on), found)
        return [one.name for one in results.newly_failed(engine, "model", date(2026, 3, on))]

    assert entered(1, a="failed", b="passed") == ["a"]
    assert entered(2, a="failed", b="failed") == ["b"]
    assert entered(2, a="failed", b="failed") == ["b"]
    assert entered(3, a="passed", b="passed") == []
    assert entered(4) == []
    rows = results.since(engine, "model", date(2026, 3, 1), date(2026, 3, 4), like="a%")
    assert [(day.day, check.verdict) for day, check in rows] == [(1, "failed"), (2, "failed"), (3, "passed")]
    assert results.of_day(engine, "another", date(2026, 3, 1)) == []


def test_the_page_names_every_check_with_its_threshold() -> None:

    page = (REPOSITORY / "docs" / "validation.md").read_text()
    found = checked(sample(), sample(source="uploads"), sample(source="training_examples"))
    for name in found:
        assert f"`{name}`" in page or f"`….{name.split('.', 1)[1]}`" in page, f"docs/validation.md has no {name}"
    for share in (EMPTY_TEXTS, MISSING_LABELS, CUT, REJECTED, UNKNOWN, OUTLYING_LENGTHS, REPEATED):
        assert f"{share:.0%}".replace("%", " %") in page
    assert all(str(one) in page for one in (LABEL_MIX, LENGTH, LANGUAGE_MIX, PIECES_PER_WORD, f"{UNUSUAL:.0f} robust"))
