from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from include.datasets import sides
from include.datasets.checks import text_keys
from include.datasets.sides import Side, Sides, Threshold, assign, places, thresholds

HALVES = {"x": Threshold(golden=0.2, validation=0.1), "y": Threshold(golden=0.2, validation=0.1)}


def rows(n: int, start: int = 0, labels: str = "xy") -> pd.DataFrame:
    names = [labels[i % len(labels)] for i in range(n)]
    return pd.DataFrame({"text": [f"text {i}" for i in range(start, start + n)], "label": names})


def begun(frame: pd.DataFrame, **options: float) -> dict[str, Threshold]:
    given = {"golden_fraction": 0.15, "golden_max_rows": 2000, "validation_fraction": 0.1} | options
    return thresholds(frame, {}, **given)  # type: ignore[arg-type]


def counts(frame: pd.DataFrame, by_label: dict[str, Threshold]) -> dict[tuple[str, int], int]:
    side = pd.Series(assign(frame, by_label, Sides.none()), frame.index, name="side")
    return frame.groupby(["label", side]).size().to_dict()


def test_a_label_begins_with_its_share_and_no_fewer_than_ten_or_a_third() -> None:
    few = pd.DataFrame({"text": [f"few {i}" for i in range(24)], "label": "z"})
    frame = pd.concat([rows(400), few], ignore_index=True)
    found = counts(frame, begun(frame))
    assert {label: found[label, Side.GOLDEN] for label in "xyz"} == {"x": 30, "y": 30, "z": 8}
    assert found["x", Side.VALIDATION] == 17


def test_a_label_keeps_two_rows_to_be_trained_on() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c", "d", "e", "f"], "label": ["x", "y", "y", "z", "z", "z"]})
    found = counts(frame, begun(frame))
    assert found["z", Side.GOLDEN] == 1
    assert found["x", Side.TRAIN] == 1
    assert found["y", Side.TRAIN] == found["z", Side.TRAIN] == 2


def test_all_labels_together_begin_near_the_most_that_are_wanted() -> None:
    frame = rows(1000)
    found = counts(frame, begun(frame, golden_max_rows=50))
    assert found["x", Side.GOLDEN] + found["y", Side.GOLDEN] == 50


def test_it_does_not_matter_in_which_order_rows_come_nor_with_which_others() -> None:
    frame = rows(500)
    at_once = pd.Series(assign(frame, HALVES, Sides.none()), frame["text"])
    known, found = Sides.none(), {}
    mixed = frame.sample(frac=1, random_state=3)
    for part in (mixed[at : at + 70] for at in range(0, 500, 70)):
        side = assign(part, HALVES, known)
        known = known.decided(list(part["text"]), side)
        found |= dict(zip(part["text"], side, strict=True))
    assert at_once.to_dict() == found


def test_what_was_decided_stays_whatever_the_label_and_threshold_are_by_then() -> None:
    frame = rows(300)
    side = assign(frame, HALVES, Sides.none())
    known = Sides.from_bytes(Sides.none().decided(list(frame["text"]), side).to_bytes())
    others = {"x": Threshold(golden=0.9, validation=0.9), "y": Threshold(golden=0, validation=0)}
    assert (assign(frame.assign(label="x"), others, known) == side).all()
    assert (assign(frame.assign(text=frame["text"].str.upper()), others, known) == side).all()
    assert (known.decided(list(frame["text"]), [Side.TRAIN] * 300).of(list(frame["text"])) == side).all()


def test_only_golden_rows_become_training_rows(file_lake: str) -> None:
    known = Sides.none().decided(["a", "b", "c"], [Side.GOLDEN, Side.GOLDEN, Side.VALIDATION]).trained(["a"])
    assert list(known.of(["a", "b", "c", "new"])) == [Side.TRAIN, Side.GOLDEN, Side.VALIDATION, -1]


def test_another_normalisation_moves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rows(300)
    side = assign(frame, HALVES, Sides.none())
    known = Sides.none().decided(list(frame["text"]), side)
    exact: Callable[[list[str]], np.ndarray] = lambda texts: text_keys([f"exactly {text}" for text in texts])  # noqa: E731
    monkeypatch.setitem(sides.NORMALISATIONS, 2, exact)
    assert (known.of(list(frame["text"])) == side).all()
    both = known.decided(["another"], [Side.GOLDEN])
    assert list(both.of(["another", "text 0"])) == [Side.GOLDEN, side[0]]
    assert set(both.table["version"]) == {1, 2}


def test_places_are_spread_evenly_and_independent_of_each_other() -> None:
    at = places([f"text {i}" for i in range(20_000)])
    assert np.abs(np.histogram(at[:, 0], 10, (0, 1))[0] - 2000).max() < 200
    assert abs(np.corrcoef(at.T)[0, 1]) < 0.03
