from pathlib import Path

import pytest

from include import lake
from include.training.data import read_dataset
from include.training.errors import TrainingError
from include.training.sources import fetch_base_model
from tests.unit.training_models import save_dataset

GOOD = [("a card", "card"), ("a fee", "fee")]


def test_labels_are_sorted(tmp_path: Path) -> None:
    dataset = read_dataset(save_dataset(tmp_path, [("x", "b"), ("y", "a"), ("z", "b")], [("w", "a")]))
    assert dataset.labels == ["a", "b"]
    assert dataset.train.texts == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([("a", "only"), ("b", "only")], [("c", "only")], r"has 1 label \(only\): a classifier needs at least 2"),
        (GOOD, [("c", "new")], "label 'new' is in validation.parquet but in no row of train.parquet"),
        (GOOD, [], "validation.parquet has no rows"),
        ([*GOOD, (None, "fee")], GOOD, "row 2 has no text"),
        ([("a", None), *GOOD], GOOD, "row 0 has no label"),
    ],
)
def test_what_cannot_be_trained_on_is_named(tmp_path: Path, train: list, validation: list, message: str) -> None:
    uri = save_dataset(tmp_path, train, validation)
    with pytest.raises(TrainingError, match=message):
        read_dataset(uri)


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"train.parquet does not exist"):
        read_dataset(f"file://{tmp_path}/datasets/none")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    uri = save_dataset(tmp_path, GOOD, GOOD)
    lake.write_bytes(f"{uri}/train.parquet", b"text,label")
    with pytest.raises(TrainingError, match=r"train.parquet is no Parquet file"):
        read_dataset(uri)


@pytest.mark.parametrize("base_model", ["/no/such/folder", "./none", "file:///no/such/model", "models:/none@champion"])
def test_a_missing_base_model_is_named_with_its_setting(base_model: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="BERT_BASE_MODEL"):
        fetch_base_model(base_model, f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "base")


def test_a_hub_id_is_left_to_transformers(tmp_path: Path) -> None:
    assert fetch_base_model("google-bert/bert-base-uncased", "", tmp_path) == "google-bert/bert-base-uncased"
