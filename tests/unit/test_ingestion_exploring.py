"""A week in numbers, and its page."""

from pathlib import Path

import pytest

from include.evaluation.week_report import write_week_report
from include.ingestion.exploring import EDGES, distance, explore

ROWS = [(f"where is my card {'x' * at}", "card", "desk") for at in range(5)] + [("a refund", "refund", "shop")] * 3


def test_texts_are_counted_by_length_label_source_and_column_and_each_class_has_its_words() -> None:
    found = explore(ROWS, ['{"when": "now", "who": "Ada"}', '{"when": "later"}', ""])
    assert (found.texts, found.labels, found.sources) == (8, {"card": 5, "refund": 3}, {"desk": 5, "shop": 3})
    assert dict(zip(EDGES, found.lengths, strict=True))[0] == 3
    assert sum(found.lengths) == 8
    assert found.columns == {"when": 2, "who": 1}
    assert set(found.words["card"]) == {"card", "where"}
    assert found.words["refund"] == ["refund"]


@pytest.mark.parametrize(
    ("before", "now", "far"),
    [({"a": 1}, {"a": 7}, 0.0), ({"a": 1}, {"b": 1}, 1.0), ({"a": 1, "b": 1}, {"a": 1}, 0.5579), ({}, {"a": 1}, None)],
    ids=["the same", "nothing in common", "in between", "no week before"],
)
def test_the_distance_of_two_mixes(before: dict[str, int], now: dict[str, int], far: float | None) -> None:
    assert distance(before, now) == far


def test_a_page_shows_texts_as_they_are_and_asks_nobody(tmp_path: Path) -> None:
    explored = explore([("<script>alert(1)</script>", "<b>", "desk")]).model_dump()
    merge = {"new": 1, "changed": 0, "known": 0, "contradicted": 1}
    shown = [{"text": "<img src=x>", "label": "<b>", "given": ["<b> (desk, 2026-01-01)"]}]
    facts = {
        "week": "2026-W02", "dag_id": "weekly_etl", "run_id": "r", "headline": "Nothing trained", "sentence": "…",
        "model": None, "files": [], "landed": [], "merge": merge | {"contradictions": shown}, "rule": "newest",
        "quality": {}, "explored": explored, "label_drift": 0.1, "length_drift": 0.0, "predictions": None,
        "length_names": [f"{edge}+" for edge in EDGES],
    }  # fmt: skip
    page = write_week_report(facts, [facts | {"week": "2026-W01"}], tmp_path).read_text()
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;img src=x&gt;" in page
    assert page.count("<svg") == 3
    assert {path.name for path in tmp_path.iterdir()} == {"week.html", "labels.png", "lengths.png", "history.png"}
