import pandas as pd

from include.datasets import snapshots


def rows(n: int, labels: str = "xy") -> pd.DataFrame:
    split = ["train" if i % 10 else "validation" for i in range(n)]
    text, label = [f"text {i}" for i in range(n)], [labels[i % len(labels)] for i in range(n)]
    return pd.DataFrame({"text": text, "label": label, "split": split})


def test_the_same_rows_in_any_order_are_the_same_snapshot(file_lake: str) -> None:
    first = snapshots.write(rows(40), {"sources": ["a"]})
    again = snapshots.write(rows(40).sample(frac=1, random_state=1), {"sources": ["b"]})
    assert again == first
    assert first["rows"] == {"train": 36, "validation": 4}


def test_one_changed_label_is_another_snapshot(file_lake: str) -> None:
    changed = rows(40)
    changed.loc[0, "label"] = "y"
    assert snapshots.write(changed, {})["dataset_id"] != snapshots.write(rows(40), {})["dataset_id"]


def test_cells_cannot_run_into_each_other() -> None:
    a = pd.DataFrame([("train", "ab", "c")], columns=["split", "text", "label"])
    b = pd.DataFrame([("train", "a", "bc")], columns=["split", "text", "label"])
    assert snapshots._content_hash(a) != snapshots._content_hash(b)


def test_a_snapshot_is_read_back_whole(file_lake: str) -> None:
    manifest = snapshots.write(rows(40), {})
    back = snapshots.read(manifest["dataset_id"])
    assert sorted(back["text"]) == sorted(rows(40)["text"])
    assert back["split"].value_counts().to_dict() == manifest["rows"]


def test_a_text_that_comes_again_takes_the_new_label() -> None:
    combined, relabelled = snapshots.combine(rows(4), pd.DataFrame({"text": ["TEXT 0", "new"], "label": ["y", "x"]}))
    assert relabelled == 1
    assert dict(zip(combined["text"], combined["label"], strict=True)) == {
        "text 1": "y", "text 2": "x", "text 3": "y", "TEXT 0": "y", "new": "x",
    }  # fmt: skip
