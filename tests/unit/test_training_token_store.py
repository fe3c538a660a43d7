from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from include import objects
from include.training import token_store
from include.training.base_models import PACKAGED, Package
from include.training.errors import TrainingError
from include.training.sources import fetch_base_model, newest_revision
from include.training.token_store import Dataset
from tests.unit.training_models import VOCABULARY, rows, save_dataset, save_tokenizer

GOOD = [("a card", "card"), ("a fee", "fee")]
GOOD_TOPICS = [*GOOD, ("a transfer", "transfer")]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_labels_are_sorted(tmp_path: Path, work: Path) -> None:
    uri = save_dataset(tmp_path, [("x", "b"), ("y", "a"), ("z", "b")], [("w", "a")])
    assert Dataset(uri, work).labels == ["a", "b"]


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
def test_what_cannot_be_trained_on_is_named(
    tmp_path: Path, work: Path, tokenizer: Any, train: list, validation: list, message: str
) -> None:
    uri = save_dataset(tmp_path, train, validation)
    with pytest.raises(TrainingError, match=message):
        Dataset(uri, work).rows(tokenizer, 16)


def test_a_missing_dataset_is_named(tmp_path: Path, work: Path) -> None:
    with pytest.raises(TrainingError, match=r"train.parquet does not exist"):
        Dataset(f"file://{tmp_path}/datasets/none", work)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, work: Path) -> None:
    uri = save_dataset(tmp_path, GOOD, GOOD)
    objects.write_bytes(f"{uri}/train.parquet", b"text,label")
    with pytest.raises(TrainingError, match=r"train.parquet is no Parquet file"):
        Dataset(uri, work)


@pytest.mark.parametrize("base_model", ["/no/such/folder", "./none", "file:///no/such/model", "models:/none@champion"])
def test_a_missing_base_model_is_named_with_its_setting(base_model: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="BERT_BASE_MODEL"):
        fetch_base_model(base_model, "", f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "base")


def test_a_folder_that_has_changed_since_the_job_was_submitted_is_not_trained_on(tmp_path: Path) -> None:
    base = tmp_path / "model"
    base.mkdir()
    (base / "config.json").write_text("{}")
    submitted = newest_revision(str(base), "")
    assert fetch_base_model(str(base), submitted, "", tmp_path / "first") == (str(base), submitted)
    (base / "config.json").write_text('{"layers": 2}')
    with pytest.raises(TrainingError, match="by now, and the job was submitted with sha256:"):
        fetch_base_model(str(base), submitted, "", tmp_path / "second")


def test_the_trainer_refuses_again_what_a_run_may_not_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"'http://localhost/model' is an address .*: allowed are"):
        fetch_base_model("http://localhost/model", "", "", tmp_path / "base")


def test_a_packaged_model_is_the_packages_and_one_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package("json", "pytest")
    monkeypatch.setitem(PACKAGED, "here", package)
    monkeypatch.setattr("json.get_model_path", lambda: tmp_path, raising=False)
    assert fetch_base_model("packaged:here", "", "", tmp_path / "base") == (
        str(tmp_path),
        f"pytest=={pytest.__version__}",
    )
    monkeypatch.setitem(PACKAGED, "away", Package("no_such_module_of_anybody", "no-such-package"))
    with pytest.raises(TrainingError, match="package no-such-package, which is not installed where this trains"):
        fetch_base_model("packaged:away", "", "", tmp_path / "other")


def test_rows_are_the_tokens_of_the_texts_however_many_pieces_they_are_read_in(
    tmp_path: Path, work: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "PIECE", 7)
    pairs = rows(30)
    read, _ = Dataset(save_dataset(tmp_path, pairs, GOOD_TOPICS), work).rows(tokenizer, 9)
    expected = [tokenizer(text, truncation=True, max_length=9)["input_ids"] for text, _ in pairs]
    assert [row["input_ids"].tolist() for row in read] == expected
    assert [row["labels"] for row in read] == [sorted({label for _, label in pairs}).index(label) for _, label in pairs]
    assert read.lengths().tolist() == [len(tokens) for tokens in expected]
    assert set(np.flatnonzero(read.used(len(VOCABULARY)))) == {token for tokens in expected for token in tokens}
    read.sort_by_length()
    assert read.lengths().tolist() == sorted(len(tokens) for tokens in expected)
    assert sorted(row["input_ids"].tolist() for row in read) == sorted(expected)


def test_token_ids_are_cached_by_content_tokenizer_and_length(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "include")

    def read(uri: str, length: int) -> bool:
        """Reads from a fresh machine's point of view; whether the cache had it."""
        caplog.clear()
        for split in Dataset(uri, Path(mkdtemp(dir=tmp_path))).rows(tokenizer, length):
            assert max(split.lengths()) <= length
        assert caplog.text.count("tokenised before") in (0, 2)
        return "tokenised before" in caplog.text

    uri = save_dataset(tmp_path / "data", rows(30), GOOD_TOPICS)
    assert [read(uri, 9), read(uri, 9), read(uri, 5)] == [False, True, False]
    save_dataset(tmp_path / "data", rows(30, seed=1), rows(9))
    assert not read(uri, 9)


def test_cached_validation_labels_do_not_outlive_a_change_of_the_training_labels(
    tmp_path: Path, tokenizer: Any
) -> None:
    uri = save_dataset(tmp_path / "data", rows(30), GOOD_TOPICS)
    _, before = Dataset(uri, Path(mkdtemp(dir=tmp_path))).rows(tokenizer, 9)
    save_dataset(tmp_path / "data", [*rows(30), ("new", "aaa")], GOOD_TOPICS)
    _, after = Dataset(uri, Path(mkdtemp(dir=tmp_path))).rows(tokenizer, 9)
    assert [row["labels"] for row in after] == [row["labels"] + 1 for row in before]


def test_a_damaged_cache_is_replaced(tmp_path: Path, tokenizer: Any) -> None:
    uri = save_dataset(tmp_path / "data", rows(30), GOOD_TOPICS)
    expected, _ = Dataset(uri, Path(mkdtemp(dir=tmp_path))).rows(tokenizer, 9)
    files = list((tmp_path / "data" / "tokens").iterdir())
    whole = [path.read_bytes() for path in files]
    for path in files:
        path.write_bytes(path.read_bytes()[:-50])
    read, _ = Dataset(uri, Path(mkdtemp(dir=tmp_path))).rows(tokenizer, 9)
    assert [row["input_ids"].tolist() for row in read] == [row["input_ids"].tolist() for row in expected]
    assert [path.read_bytes() for path in files] == whole


def test_dictionary_encoded_columns_in_several_row_groups_are_read(tmp_path: Path, work: Path, tokenizer: Any) -> None:
    pairs = rows(70)
    texts, labels = (pa.array(column).dictionary_encode() for column in zip(*pairs, strict=True))
    save_dataset(tmp_path, pairs, GOOD_TOPICS)
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "train.parquet", row_group_size=9)
    read, _ = Dataset(f"file://{tmp_path}", work).rows(tokenizer, 30)
    assert [row["input_ids"].tolist() for row in read] == [tokenizer(text)["input_ids"] for text, _ in pairs]


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(
    tmp_path: Path, work: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "include")
    uri = save_dataset(tmp_path / "data", rows(30), GOOD_TOPICS)
    (tmp_path / "data" / "tokens").write_text("a file where the cache's folder should be")
    train, _ = Dataset(uri, work).rows(tokenizer, 9)
    assert len(train) == 30
    assert "not kept for the next job" in caplog.text
