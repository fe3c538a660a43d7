"""What is said of two trainings of one job."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from include.training.comparison import Comparison, compare
from include.training.job import Result
from tests.unit.training_models import job

FACTS = {
    "versions": {"torch": "2.13.0", "numpy": "1.26.4"},
    "base_model_revision": "sha256:1",
    "trainer_hash": "c0de",
    "dataset_files": {"train": "a", "validation": "b"},
    "machine": {"processor": "x", "threads": "1"},
    "extra": {"device": "cpu", "precision": "float32"},
}


def result(accuracy: float = 0.9, **changes: object) -> Result:
    plain = {
        "job_id": "j", "model_uri": "m", "mlflow_run_id": "r", "best_epoch": 1, "history": [], "labels": ["a", "b"],
        "rows": {"validation": 200}, "seconds": {},
        "metrics": {"validation_accuracy": accuracy, "validation_macro_f1": accuracy},
    }  # fmt: skip
    return Result.model_validate(plain | FACTS | changes)


@pytest.fixture
def compared(tmp_path: Path):
    """Compares two results, with one weight apart by so much."""
    wanted = job("s3://bert/datasets/d1", "org/name", "http://localhost:5000")

    def apply(one: Result, other: Result, apart: float = 0.0, **tensors: torch.Tensor) -> Comparison:
        folders = tmp_path / "one", tmp_path / "other"
        for folder, shift in zip(folders, (0.0, apart), strict=True):
            folder.mkdir(exist_ok=True)
            weights = {"a": torch.ones(2), "b": torch.ones(3) + torch.tensor([0, shift, 0])}
            save_file(weights | (tensors if folder.name == "other" else {}), folder / "model.safetensors")
        return compare((wanted, wanted), (one, other), folders)

    return apply


def test_the_same_is_the_same_on_whatever_machine(compared) -> None:
    assert compared(result(), result()).verdict == "same"
    elsewhere = compared(result(), result(machine={"processor": "y", "threads": "1"}))
    assert elsewhere.verdict == "same"
    assert "The first difference: machine processor: x before, y now" in elsewhere.explanation


def test_another_weight_that_nothing_explains_is_another_model(compared) -> None:
    found = compared(result(), result(), apart=1e-3)
    assert found.verdict == "different"
    assert str(found.first_difference) == "tensor b: 1 at 1 before, 1.00100005 (the furthest apart, by 0.001) now"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"versions": {"torch": "2.14.0", "numpy": "1.26.4"}}, "library torch: 2.13.0 before, 2.14.0 now"),
        ({"versions": {"torch": "2.13.0"}}, "library numpy: 1.26.4 before, none now"),
        ({"trainer_hash": "other", "machine": {}}, "code include/training: c0de before, other now"),
        ({"base_model_revision": "sha256:2"}, "base model revision: sha256:1 before, sha256:2 now"),
        ({"dataset_files": {"train": "a", "validation": "c"}}, "data validation: b before, c now"),
        ({"extra": {"device": "cuda", "precision": "float32"}}, "machine device: cpu before, cuda now"),
    ],
    ids=["library", "missing library", "code first", "base model", "data", "device"],
)
def test_what_comes_first_to_bear_is_named_first(compared, changes: dict, first: str) -> None:
    found = compared(result(), result(0.91, **changes), apart=1e-3)
    assert (found.verdict, str(found.first_difference)) == ("within_tolerance", first)
    assert found.differences[-1].kind == "tensor"
    assert "0.0100 apart, within the tolerance of 0.0200" in found.explanation


def test_metrics_beyond_the_tolerance_are_another_model_whatever_explains_it(compared) -> None:
    found = compared(result(), result(0.93, trainer_hash="other"), apart=1e-3)
    assert found.verdict == "different"
    assert "0.0300 apart, beyond the tolerance of 0.0200" in found.explanation
    few = compared(result(rows={"validation": 20}), result(0.99, trainer_hash="other"), apart=1e-3)
    assert (few.verdict, few.tolerance) == ("within_tolerance", 0.1)


def test_a_checkpoint_and_what_an_earlier_release_did_not_say_are_reasons(compared) -> None:
    resumed = compared(result(resumed_from_step=3), result(), apart=1e-6)
    assert "went on from a checkpoint" in resumed.explanation
    old = compared(result(base_model_revision="", machine={}), result(), apart=1e-6)
    assert old.verdict == "within_tolerance"
    assert old.unknown == ["base model revision", "machine processor", "machine threads"]


def test_a_tensor_of_another_shape_or_none_is_named(compared) -> None:
    shape = compared(result(), result(), a=torch.ones(4))
    assert "tensor a: torch.float32 [2] before, torch.float32 [4] now" in shape.explanation
    more = compared(result(), result(), c=torch.ones(1))
    assert "tensor c: missing before, there now" in more.explanation
