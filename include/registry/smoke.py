"""Whether a registered version can serve at all: it loads, answers with numbers, and is the model it says it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from include.registry.models import LABELS_HASH, ModelVersion, hash_labels


class SmokeTestFailed(RuntimeError):
    """A version does not load or does not answer as it should."""


@dataclass(frozen=True)
class SmokeTest:
    """Texts to score; with ``labels`` (as many), at least the share ``min_accuracy`` of them must come out right."""

    texts: Sequence[str]
    labels: Sequence[str] | None = None
    min_accuracy: float = 0.0

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("a smoke test needs at least one text")
        if self.labels is not None and len(self.labels) != len(self.texts):
            raise ValueError(f"a smoke test has {len(self.texts)} texts but {len(self.labels)} labels")


def check(version: ModelVersion, test: SmokeTest) -> None:
    """Loads a version from its own files and scores the texts. Raises SmokeTestFailed with what is wrong."""
    from include.training.scoring import score

    name = f"{version.name} version {version.version} ({version.uri})"
    try:
        scores = score(version.uri, test.texts)
    except Exception as error:
        # Files can be broken in any way, and the answer is the same one.
        raise SmokeTestFailed(f"{name} cannot be scored: {type(error).__name__}: {error}") from error
    _check_answers(name, version, scores.labels, scores.probabilities, len(test.texts))
    if test.labels is not None:
        right = sum(a == b for a, b in zip(scores.predicted, test.labels, strict=True))
        if right / len(test.labels) < test.min_accuracy:
            raise SmokeTestFailed(
                f"{name} gets {right} of {len(test.labels)} labelled rows right: below {test.min_accuracy:.3f}"
            )


def _check_answers(name: str, version: ModelVersion, labels: list[str], probabilities: object, rows: int) -> None:
    import numpy as np

    answers = np.asarray(probabilities)
    if answers.shape != (rows, len(labels)):
        raise SmokeTestFailed(f"{name} answers with shape {answers.shape} to {rows} texts and {len(labels)} labels")
    if not np.isfinite(answers).all():
        raise SmokeTestFailed(f"{name} answers with probabilities that are not finite")
    if hash_labels(labels) != version.tags.get(LABELS_HASH):
        raise SmokeTestFailed(f"{name} has other labels than were registered: {labels[:5]} …; its files were changed")
