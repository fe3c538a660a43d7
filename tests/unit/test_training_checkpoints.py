from pathlib import Path

import pytest

from include import objects
from include.training.checkpoints import MARKER, Checkpoints


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path}/jobs/1/checkpoints"


def _attempt(uri: str, tmp_path: Path, name: str) -> Checkpoints:
    work = tmp_path / name
    work.mkdir()
    return Checkpoints(uri, work, "start")


def _save(checkpoints: Checkpoints, step: int, best_step: int = 0, text: str = "weights") -> None:
    folder = checkpoints.local(step)
    folder.mkdir()
    (folder / "model.safetensors").write_text(f"{text} {step}")
    (folder / "optimizer.pt").write_text("moments")
    checkpoints.upload(step, best_step)


def test_nothing_to_resume_from(uri: str, tmp_path: Path) -> None:
    assert _attempt(uri, tmp_path, "a").restore() == 0


def test_newest_and_best_are_kept_and_restored(uri: str, tmp_path: Path) -> None:
    first = _attempt(uri, tmp_path, "a")
    for step, best in ((9, 9), (10, 10), (20, 10), (30, 10)):
        _save(first, step, best)
    assert [one.step for one in first.complete()] == [30, 10]
    assert sorted(path.name for path in first.work.iterdir()) == ["checkpoint-10", "checkpoint-30"]
    second = _attempt(uri, tmp_path, "b")
    assert second.restore() == 30
    assert (second.local(10) / "model.safetensors").read_text() == "weights 10"
    assert (second.local(30) / "optimizer.pt").read_text() == "moments"


def test_a_half_uploaded_checkpoint_is_never_resumed_from(uri: str, tmp_path: Path) -> None:
    _save(_attempt(uri, tmp_path, "a"), 10)
    objects.write_bytes(f"{uri}/000000020-killed/model.safetensors", b"weights")
    assert _attempt(uri, tmp_path, "b").restore() == 10


def test_a_marker_without_its_files_does_not_count(uri: str, tmp_path: Path) -> None:
    _save(_attempt(uri, tmp_path, "a"), 10)
    lost = {"step": 20, "best_step": 0, "files": {"model.safetensors": 7}}
    objects.write_json(f"{uri}/000000020-pruned/{MARKER}", lost)
    assert _attempt(uri, tmp_path, "b").restore() == 10


def test_a_file_of_another_size_is_not_resumed_from(uri: str, tmp_path: Path) -> None:
    first = _attempt(uri, tmp_path, "a")
    _save(first, 10, 10)
    _save(first, 20, 10)
    objects.write_bytes(f"{first.complete()[0].uri}/model.safetensors", b"cut")
    assert _attempt(uri, tmp_path, "b").restore() == 10


def test_leftovers_of_a_killed_attempt_are_cleaned_up(uri: str, tmp_path: Path) -> None:
    objects.write_bytes(f"{uri}/000000005-killed/model.safetensors", b"weights")
    _save(_attempt(uri, tmp_path, "a"), 10)
    assert {found.rsplit("/", 2)[1].split("-")[0] for found in objects.find(uri)} == {"000000010"}


def test_an_attempt_never_writes_into_anothers_checkpoint(uri: str, tmp_path: Path) -> None:
    first, second = _attempt(uri, tmp_path, "a"), _attempt(uri, tmp_path, "b")
    _save(first, 10, text="first's")
    _save(second, 10, text="second's")
    assert len({one.uri for one in first.complete()} | {one.uri for one in second.complete()}) == 1
    third = _attempt(uri, tmp_path, "c")
    assert third.restore() == 10
    assert (third.local(10) / "model.safetensors").read_text() == "second's 10"


def test_clear_leaves_nothing(uri: str, tmp_path: Path) -> None:
    checkpoints = _attempt(uri, tmp_path, "a")
    _save(checkpoints, 10)
    checkpoints.clear()
    assert objects.find(uri) == []


def test_a_best_checkpoint_that_was_not_worth_its_upload_is_sent_with_the_next(uri: str, tmp_path: Path) -> None:
    checkpoints = _attempt(uri, tmp_path, "a")
    best = checkpoints.local(10)
    best.mkdir()
    (best / "model.safetensors").write_text("best")
    _save(checkpoints, 20, best_step=10)
    assert [(one.step, one.best_step) for one in checkpoints.complete()] == [(20, 10), (10, 10)]
    again = _attempt(uri, tmp_path, "b")
    assert again.restore() == 20
    assert (again.local(10) / "model.safetensors").read_text() == "best"
