"""The statistics of the gates, by exact calculation over all outcomes."""

from math import exp, lgamma, log
from pathlib import Path

import pandas as pd
import pytest

from include.evaluation.answers import Answer, keys_of, read_answers, write_answers
from include.evaluation.changed import changes, read
from include.evaluation.comparison import Pair, compare, half_width, least_right, rows_for, smallest_visible_drop


def chance_of_worse(rows: int, discordance: float, drop: float, confidence: float) -> float:
    """Of a challenger that is truly worse by ``drop``: fixed and broken rows are drawn from a trinomial."""
    fix, broke = (discordance - drop) / 2, (discordance + drop) / 2
    found = 0.0
    for fixed in range(rows + 1):
        for broken in range(fixed + 1, rows - fixed + 1):
            if fixed + broken > rows * discordance * 3 + 20:
                break
            pair = Pair(fixed, broken, rows)
            if pair.difference < -half_width(pair, confidence):
                rest = rows - fixed - broken
                ways = lgamma(rows + 1) - lgamma(fixed + 1) - lgamma(broken + 1) - lgamma(rest + 1)
                likelihood = fixed * log(fix) if fixed else 0.0
                found += exp(ways + likelihood + broken * log(broke) + rest * log(1 - discordance))
    return found


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("discordance", [0.02, 0.06, 0.2])
@pytest.mark.parametrize("rows", [30, 126, 300])
def test_an_equal_model_is_called_worse_no_more_often_than_the_confidence_says(
    rows: int, discordance: float, confidence: float
) -> None:
    assert chance_of_worse(rows, discordance, 0, confidence) <= 1.02 * (1 - confidence)


@pytest.mark.parametrize(("rows", "discordance"), [(126, 0.2), (300, 0.06), (600, 0.06), (600, 0.1)])
def test_the_drop_that_is_said_to_be_visible_shows_four_times_in_five(rows: int, discordance: float) -> None:
    drop = smallest_visible_drop(rows, discordance, 0.99, 0)
    assert chance_of_worse(rows, max(discordance, drop + 1e-9), drop, 0.99) == pytest.approx(0.8, abs=0.05)


def test_the_rows_that_are_said_to_be_needed_show_the_drop() -> None:
    needed = rows_for(0.02, 0.06, 0.99)
    assert needed == pytest.approx(1500, abs=20)
    assert smallest_visible_drop(needed, 0.06, 0.99, 0) == pytest.approx(0.02, abs=0.0005)
    assert rows_for(0, 0.06, 0.99) is None


def test_a_few_rows_show_nothing_and_say_so() -> None:
    assert smallest_visible_drop(2, 0.5, 0.99, 0.02) == 1
    with pytest.raises(ValueError, match="no rows on which to compare with the champion"):
        compare(Pair(0, 0, 0), "champion", 0.99, 0.02)


@pytest.mark.parametrize("rows", [1, 5, 20, 400])
def test_the_least_right_rows_refuse_what_is_at_the_floor_at_most_as_often_as_said(rows: int) -> None:
    from scipy.stats import binom

    least = least_right(rows, 0.7, 0.01)
    assert binom.cdf(least - 1, rows, 0.7) <= 0.01 < binom.cdf(least, rows, 0.7)
    assert (least_right(rows, 0, 0.01), least_right(rows, 1, 0.01)) == (0, rows)


def answers(keys: list[str], labels: list[str], predicted: list[str], model: str, version: str) -> list[Answer]:
    uri = f"s3://bert/{version or 'job'}"
    return [
        Answer(key, label, True, model, version, uri, answer, 0.9)
        for key, label, answer in zip(keys, labels, predicted, strict=True)
    ]


def test_two_versions_are_compared_from_two_files_on_the_rows_that_both_answered(tmp_path: Path) -> None:
    keys = keys_of(["one", "two", "three", "four"])
    first = answers(keys[:3], ["a", "b", "a"], ["a", "a", "a"], "challenger", "")
    first += answers(keys[:3], ["a", "b", "a"], ["b", "b", "b"], "champion", "1")
    # A golden row that was corrected since, and one that is new, were not asked about alike.
    second = answers(keys, ["a", "b", "b", "a"], ["b", "b", "b", "a"], "challenger", "")
    one = write_answers(first, tmp_path / "first")
    two = write_answers(second, tmp_path / "second")
    found = changes(read(two), read(one))
    assert (found["rows"], found["fixed"], found["broken"]) == (2, 1, 1)
    assert list(read_answers(one, "1")["predicted"]) == ["b", "b", "b"]
    with pytest.raises(ValueError, match=r"'7' did not answer in .*; there are: challenger s3://bert/job, champion 1"):
        read_answers(one, "7")


def test_what_two_versions_answer_differently_is_told_apart_and_has_the_texts_that_one_of_them_kept(
    tmp_path: Path,
) -> None:
    keys, labels = keys_of(["one", "two", "three", "four"]), ["a", "a", "b", "c"]
    first = answers(keys, labels, ["a", "b", "b", "a"], "challenger", "")  # of a release that kept no texts
    second = [
        one._replace(text=text, confidence=confidence)
        for one, text, confidence in zip(
            answers(keys, labels, ["b", "a", "b", "b"], "challenger", ""),
            ["one", "two", "three", "four"], [0.5, 0.6, 0.7, 0.8], strict=True,
        )
    ]  # fmt: skip
    old, new = write_answers(first, tmp_path / "first"), write_answers(second, tmp_path / "second")
    pd.read_parquet(old).drop(columns="text").to_parquet(old)
    found = changes(read(new), read(old))
    assert found["counts"] == {"broken": 1, "fixed": 1, "other": 1}
    assert [(row["kind"], row["text"], row["predicted_old"], row["predicted"]) for row in found["changed"]] == [
        ("broken", "one", "a", "b"),
        ("fixed", "two", "b", "a"),
        ("other", "four", "a", "b"),
    ]
    merged = changes(read(new), read(old), {"b": "a", "c": "a"})
    assert (merged["rows"], merged["changed"]) == (4, []), "by the labels' present names they answer alike"
