"""The speed code piece by piece, its profile, and the GPU's script, each in small on this machine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dev.bench import gpu_check, page, pieces, profile
from dev.bench.loop import by_tokens
from tests.unit.training_models import save_bert


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base"), mean_pooling=True)


def test_every_piece_is_measured_and_the_page_shows_it(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "pieces.json"
    words = ["--model", str(base), "--texts", "24", "--rounds", "1", "--batch-size", "4"]
    assert pieces.main([*words, "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    kinds = [row[""] for row in found["rows"]]
    assert kinds[0] == ""
    assert kinds.count("left out") >= 5
    assert kinds.count("tried") == 1
    assert all(float(row["gain"].rstrip("×")) > 0 for row in found["rows"])  # noqa: RUF001
    assert "word vectors that occur only (`vocabulary`) | left out |" in page.render(None, None, None, None, found)


def test_batches_by_tokens_hold_no_more_of_them_than_asked_and_every_row_once() -> None:
    lengths = np.array([3, 9, 4, 4, 30, 2])
    batches = list(by_tokens([5, 0, 2, 3, 1, 4], lengths, 12))
    assert [row for batch in batches for row in batch] == [5, 0, 2, 3, 1, 4]
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 12 for batch in batches)


def test_the_profile_says_where_the_time_goes(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.txt"
    words = ["--model", str(base), "--steps", "1", "--texts", "128", "--out", str(out)]
    assert profile.main(words) == 0
    told = out.read_text()
    assert "MFU" in told
    assert "%  matrix products" in told
    assert "aten::addmm" in told


@pytest.mark.nightly
def test_every_part_of_the_gpus_script_runs_in_small_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu_check.main(["--device", "cpu", "--tiny", "--out", str(out)]) == 0, out.read_text()
    found = json.loads(out.read_text())
    assert {row["part"] for row in found["rows"]} == {"matrix product", *gpu_check.PARTS}
    by_part = {row["part"]: row for row in found["rows"]}
    assert by_part["kill and resume"]["resumed from step"] > 0
    assert by_part["training"]["not run"] == "no --unpadded FOLDER given", "what is left out is said"
    assert found["facts"]["card"] == "none: this was the CPU"
    assert "| kill and resume |" in page.render(None, None, found)


def test_a_part_for_which_no_time_is_left_or_that_fails_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(check: Any) -> None:
        raise RuntimeError("no memory")

    check = gpu_check.Check("cpu", False, Path(), "", None, None, 0.0)  # type: ignore[arg-type]
    monkeypatch.setattr(gpu_check, "PARTS", {"slow": (broken, 10**9), "broken": (broken, -(10**9))})
    told: list[Any] = []
    check.tell = told.append
    gpu_check.measure(check)
    assert "it takes" in check.rows[0]["not run"]
    assert check.rows[1] == {"part": "broken", "failed": "no memory"}
    assert told == check.rows, "each as it is found"
