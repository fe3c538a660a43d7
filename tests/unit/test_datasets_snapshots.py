import pandas as pd
import pytest

from include import lake
from include.datasets import golden, snapshots


def rows(n: int, labels: str = "xy") -> pd.DataFrame:
    return pd.DataFrame({"text": [f"text {i}" for i in range(n)], "label": [labels[i % len(labels)] for i in range(n)]})


def test_the_same_rows_in_any_order_are_the_same_snapshot(file_lake: str) -> None:
    first = snapshots.write(rows(40), 0.1, {"sources": ["a"]})
    again = snapshots.write(rows(40).sample(frac=1, random_state=1), 0.1, {"sources": ["b"]})
    assert again == first
    assert first["rows"] == {"train": 36, "validation": 4}


def test_one_changed_label_is_another_snapshot(file_lake: str) -> None:
    changed = rows(40)
    changed.loc[0, "label"] = "y"
    assert snapshots.write(changed, 0.1, {})["dataset_id"] != snapshots.write(rows(40), 0.1, {})["dataset_id"]


def test_cells_cannot_run_into_each_other() -> None:
    a = pd.DataFrame([("train", "ab", "c")], columns=["split", "text", "label"])
    b = pd.DataFrame([("train", "a", "bc")], columns=["split", "text", "label"])
    assert snapshots._content_hash(a) != snapshots._content_hash(b)


def test_a_snapshot_is_read_back_whole(file_lake: str) -> None:
    manifest = snapshots.write(rows(40), 0.1, {})
    back = snapshots.read(manifest["dataset_id"])
    assert sorted(back["text"]) == sorted(rows(40)["text"])
    assert back["split"].value_counts().to_dict() == manifest["rows"]


def test_every_label_gives_to_the_share_and_keeps_two() -> None:
    frame = pd.concat([rows(100), pd.DataFrame({"text": ["p", "q", "r"], "label": ["z"] * 3})], ignore_index=True)
    share = snapshots.stratified_share(frame, 0.2, "salt")
    assert frame[share]["label"].value_counts().to_dict() == {"x": 10, "y": 10, "z": 1}


def test_a_label_of_one_or_two_rows_keeps_them() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", "y", "y"]})
    assert not snapshots.stratified_share(frame, 0.5, "salt").any()


def test_a_share_is_bounded_and_does_not_depend_on_other_labels() -> None:
    frame = rows(1000)
    assert snapshots.stratified_share(frame, 0.2, "s", at_most=50).sum() == 50
    only_x = frame[frame["label"] == "x"]
    assert (
        snapshots.stratified_share(only_x, 0.1, "s") == snapshots.stratified_share(frame, 0.1, "s")[only_x.index]
    ).all()


def test_a_text_that_comes_again_takes_the_new_label() -> None:
    combined, relabelled = snapshots.combine(rows(4), pd.DataFrame({"text": ["TEXT 0", "new"], "label": ["y", "x"]}))
    assert relabelled == 1
    assert dict(zip(combined["text"], combined["label"], strict=True)) == {
        "text 1": "y", "text 2": "x", "text 3": "y", "TEXT 0": "y", "new": "x",
    }  # fmt: skip


def test_a_golden_set_is_frozen_once(file_lake: str) -> None:
    assert golden.read("m") is None
    first = golden.freeze("m", rows(10))
    second = golden.freeze("m", rows(20))
    assert second.sha256 == first.sha256
    assert len(second.rows) == 10


def test_a_changed_golden_set_is_refused(file_lake: str) -> None:
    golden.freeze("m", rows(10))
    lake.write_bytes(lake.read_json(lake.golden("m", "golden.json"))["uri"], b"other rows")
    with pytest.raises(golden.GoldenSetError, match="changed after it was frozen"):
        golden.read("m")


def test_a_leak_is_found_by_normalised_text(file_lake: str) -> None:
    frozen = golden.freeze("m", rows(10))
    golden.check_no_leak(pd.Series(["something else"]), frozen, "s3://d")
    with pytest.raises(golden.GoldenSetError, match=r"1 golden texts are in s3://d, for example 'TEXT  3'"):
        golden.check_no_leak(pd.Series(["TEXT  3", "other"]), frozen, "s3://d")
