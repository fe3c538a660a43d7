"""The simulation of the drift test, on few made-up answers: the page is written from what was found."""

from pathlib import Path

import numpy as np
import pytest

from dev.drift import page, rivals, runs
from dev.drift.pool import Answers, Pool
from dev.drift.world import KINDS, Change, World


@pytest.fixture(scope="module")
def pool() -> Pool:
    dice = np.random.default_rng(0)
    true = dice.integers(0, 6, 300)
    usual, strange = dice.dirichlet(np.full(6, 0.1), 300) * 0.2, dice.dirichlet(np.full(6, 0.3), 100)
    usual[np.arange(300), true] += 0.8
    length = np.full(300, 40.0)
    return Pool(
        "made up", tuple("abcdef"), Answers(usual, length, true), Answers(strange, length[:100], np.full(100, -1))
    )


def test_the_page_shows_what_was_simulated(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Evidently takes 15 seconds to be imported; `make simulate-drift` asks it.
    monkeypatch.setitem(rivals.RIVALS, "evidently", rivals.daily_ks)
    monkeypatch.setattr(runs, "TEXTS", (500,))
    monkeypatch.setattr(runs, "LONGEST", 10)
    told: list[str] = []
    size = runs.Size(no_drift_days=80, drifts=2, young=1, liveliest=1, watched_days=20, shifts=3)
    found = runs.everything(pool, size, told.append)
    found |= {"size": {"drifts": 2}, "minutes": 1.0, "when": "now", "code": "x"}
    assert found["no_drift"]["model_days"] == 80
    assert {len(cell["ours"]["each"]) for cell in found["detection"]} == {2}
    assert all(0 <= one["estimated"] <= 1 and 0 <= one["true"] <= 1 for one in found["estimated_accuracy"])
    assert len(list(runs.bounds(found))) == 7
    assert {one["hidden"] for one in found["estimated_accuracy"]} <= {True, False}
    text = page.write(found, tmp_path).read_text()
    assert f"ours **{found['no_drift']['ours']}**" in text
    assert "| 20% label shift | 500 |" in text
    assert (tmp_path / "monitoring.svg").stat().st_size > 10_000
    assert len(told) == len(KINDS) + len(runs.DRIFTS)


def test_a_change_is_in_the_days_answers(pool: Pool) -> None:
    world = World(pool, 2_000, KINDS[0], seed=1)
    usual, moved, strange = (world.day(change) for change in (Change(), Change(moved=0.9), Change(strange=0.5)))
    assert (usual.answers.true >= 0).all()
    three = np.sort(np.bincount(moved.answers.true, minlength=6))[-3:].sum()
    assert three > 0.9 * len(moved.answers)
    assert (strange.answers.true < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert float(usual.sums.texts[0]) == len(usual.answers)
