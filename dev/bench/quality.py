"""Measures quality: test accuracy of run_classification and of our trainer, seed by seed.

Hours on two cores. What is through is kept in a JSON file and not run again, so it can be stopped and gone on with.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dev.bench import data
from dev.bench.plan import Recipe
from dev.bench.runs import Run, run
from dev.bench.scoring import accuracy, answer
from dev.bench.sides import DYNAMIC_PADDING, Baseline, Ours

VALIDATION_SHARE = 0.1  # our trainer chooses its best epoch by these rows; no side trains on them
SIDES = ("run_classification", "ours", "ours_plain")
Kept = dict[str, Any]


@dataclass(frozen=True)
class Quality:
    """What is compared.

    Args:
        texts: All of the training rows are trained on, but for VALIDATION_SHARE; accuracy is that on all test rows.
        baseline: run_classification; the recipe is taken from here, its seed apart.
        ours: Our trainers by side.
        kept: The JSON file of results.
    """

    texts: data.Texts
    baseline: Baseline
    ours: dict[str, Ours]
    kept: Path

    def settings(self) -> Kept:
        """What must be equal for results to belong together."""
        recipe = {name: value for name, value in asdict(self.baseline.recipe).items() if name != "seed"}
        rows = {"train_rows": len(self.texts.train), "test_rows": len(self.texts.test)}
        return {"data": self.texts.source, **rows, **recipe}

    def measure(self, sides: Iterable[str], seeds: Iterable[int], tell: Callable[[str], None]) -> Kept:
        """Runs and keeps what is missing; returns all there is. Raises ValueError if the file is of other settings."""
        kept = read(self.kept, self.settings())
        for side, seed in missing(kept, sides, seeds):
            with TemporaryDirectory(prefix="bench-quality-") as work:
                done, right = self._one(side, replace(self.baseline.recipe, seed=seed), Path(work))
            kept["runs"].append({"side": side, "seed": seed, "accuracy": round(right, 5), **asdict(done)})
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            self.kept.write_text(json.dumps(kept, indent=2))
            tell(f"{side}, seed {seed}: accuracy {right:.4f} after {done.seconds / 60:.1f} minutes")
        return kept

    def _one(self, side: str, recipe: Recipe, work: Path) -> tuple[Run, float]:
        rows = self.texts.workload(work / "data", len(self.texts.train), int(VALIDATION_SHARE * len(self.texts.train)))
        if side in self.ours:
            return self._ours(replace(self.ours[side], recipe=recipe), rows, work)
        train = data.read(rows, "train")
        # Padding to 128 tokens is slower and, masked as it is, gives the same numbers.
        script = replace(self.baseline, recipe=recipe).launch(
            data.save(work / "test", train, self.texts.test), work / "run", work / "cache", DYNAMIC_PADDING
        )
        done = run(script, work / "run")
        return done, json.loads((work / "run" / "output" / "all_results.json").read_text())["eval_accuracy"]

    def _ours(self, ours: Ours, rows: Path, work: Path) -> tuple[Run, float]:
        launch = ours.launch(rows, work / "run", work / "cache")
        done = run(launch, work / "run")
        model = str(ours.result(launch)["model_uri"])
        labels = answer(work / "scoring", "ours", model, list(self.texts.test["text"]))["labels"]
        return done, accuracy(labels, list(self.texts.test["label"]))


def read(path: Path, settings: Kept) -> Kept:
    """The results kept so far. Raises ValueError if they are of other settings."""
    if not path.exists():
        return {"settings": settings, "runs": []}
    kept: Kept = json.loads(path.read_text())
    if kept["settings"] != settings:
        raise ValueError(f"{path} holds results of other settings ({kept['settings']}): move it away to start anew")
    return kept


def missing(kept: Kept, sides: Iterable[str], seeds: Iterable[int]) -> list[tuple[str, int]]:
    """Sides and seeds without a result, one seed of all sides after the other."""
    through = {(one["side"], one["seed"]) for one in kept["runs"]}
    sides = list(sides)
    return [(side, seed) for seed in seeds for side in sides if (side, seed) not in through]
