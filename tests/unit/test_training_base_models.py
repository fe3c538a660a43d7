"""Which base models a run may name, and what a download may write."""

from pathlib import Path

import fsspec
import pytest

from include import objects
from include.training.base_models import Kind, kind, refusal


@pytest.fixture(autouse=True)
def _a_deployment(set_env) -> None:
    set_env(BERT_BUCKET="ours", BERT_BASE_MODEL_BUCKETS="zoo, more", BERT_LOCAL_BASE_MODELS="false")


@pytest.mark.parametrize(
    ("base_model", "expected"),
    [
        ("google-bert/bert-base-uncased", Kind.HUB),
        ("bert-base-uncased", Kind.HUB),
        ("models:/bert-classifier@champion", Kind.REGISTRY),
        ("models:/bert-classifier/3", Kind.REGISTRY),
        ("packaged:all-MiniLM-L6-v2", Kind.PACKAGE),
        ("s3://ours/base/minilm", Kind.STORAGE),
        ("s3://zoo/bert/", Kind.STORAGE),
        ("s3://more/x", Kind.STORAGE),
    ],
)
def test_what_is_allowed_everywhere(base_model: str, expected: Kind) -> None:
    assert kind(base_model) is expected
    assert refusal(base_model) == ""


@pytest.mark.parametrize(
    ("base_model", "words"),
    [
        ("http://169.254.169.254/latest", "not fetched from"),
        ("https://example.com/model", "not fetched from"),
        ("hf://org/name", "not fetched from"),
        ("memory://x", "not fetched from"),
        ("zip://a::http://b", "not fetched from"),
        ("S3://ours/x", "not fetched from"),
        ("file:///etc", "a path of one machine"),
        ("/etc", "a path of one machine"),
        ("~/model", "a path of one machine"),
        ("./include", "a path of one machine"),
        ("include/training/../../../etc", "has .. in it"),
        ("s3://ours/../theirs/x", "has .. in it"),
        ("s3://theirs/x", "a bucket that base models are not fetched from"),
        ("s3://ours-too/x", "a bucket that base models are not fetched from"),
        ("s3://ours/", "a bucket that base models are not fetched from"),
        ("models:/x", "names no version or alias"),
        ("models:/x@y/../z", "names no version or alias"),
        ("packaged:other", "is no packaged model"),
        ("a/b/c", "is no address of a model"),
        ("a b", "is no address of a model"),
    ],
)
def test_what_is_not_is_refused_in_one_sentence_with_what_is(base_model: str, words: str) -> None:
    said = refusal(base_model)
    assert words in said
    assert repr(base_model) in said
    for way in ("Hugging Face id", "s3://ours/…", "s3://zoo/…", "models:/name@alias", "packaged:all-MiniLM-L6-v2"):
        assert way in said
    assert "\n" not in said


def test_a_name_that_is_also_a_folder_here_is_a_hub_id_where_no_folders_are_allowed(
    tmp_path: Path, set_env, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert kind("org/name") is Kind.HUB
    set_env(BERT_LOCAL_BASE_MODELS="true")
    assert kind("org/name") is Kind.FOLDER
    assert kind("/any") is kind("file:///any") is Kind.FOLDER


@pytest.mark.parametrize("own", ["/opt/model", "s3://theirs/model"])
def test_a_deployments_own_base_model_may_lie_where_a_runs_may_not(set_env, own: str) -> None:
    set_env(BERT_BASE_MODEL=own)
    assert refusal(own) == ""
    assert refusal(f"{own}2") != ""


def test_a_key_that_leaves_its_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for key in ("config.json", "1_Pooling/../../../outside.json"):
        files.store[f"/zoo/{key}"] = fsspec.implementations.memory.MemoryFile(files, f"/zoo/{key}", b"{}")
    with pytest.raises(objects.UnsafeKeyError, match=r"outside.json', which would leave its folder"):
        objects.download("memory://zoo", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
