"""Whether a registered version can serve at all, and what is given up with the champion that it replaces."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from include.registry.models import LABELS_HASH, ModelVersion, hash_labels

if TYPE_CHECKING:
    from include.training.scoring import Scores

logger = logging.getLogger(__name__)


class SmokeTestFailed(RuntimeError):
    """A version does not load or does not answer as it should."""


@dataclass(frozen=True)
class SmokeTest:
    """Texts to score; with ``labels`` (as many) it is told how many come right.

    A version that answers with an old name of a label, by ``label_mapping``, means the new one.
    """

    texts: Sequence[str]
    labels: Sequence[str] | None = None
    label_mapping: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("a smoke test needs at least one text")
        if self.labels is not None and len(self.labels) != len(self.texts):
            raise ValueError(f"a smoke test has {len(self.texts)} texts but {len(self.labels)} labels")


@dataclass(frozen=True)
class Changed:
    """A row that one of two models gets right and the other does not."""

    text: str
    label: str
    answer: str  # the wrong one


@dataclass(frozen=True)
class GivenUp:
    """Two versions on the same labelled rows.

    Attributes:
        rows: how many there are; 0 if the texts have no labels.
        right: how many of them the version that comes back gets right.
        right_before: how many the one that goes got right; None if there is none, or it does not answer.
        wrong_again: those that it got right, and that come wrong again.
        right_again: the reverse.
    """

    rows: int
    right: int = 0
    right_before: int | None = None
    wrong_again: list[Changed] = field(default_factory=list)
    right_again: list[Changed] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int | None]:
        """What the ledger keeps of it; empty if the texts had no labels."""
        if not self.rows:
            return {}
        again = {"wrong_again": len(self.wrong_again), "right_again": len(self.right_again)}
        return {"golden_rows": self.rows, "right": self.right, "right_before": self.right_before, **again}


def compare(version: ModelVersion, champion: ModelVersion | None, test: SmokeTest) -> GivenUp:
    """Lets a version answer the test's texts, and the champion that it is to replace.

    Raises SmokeTestFailed if the version cannot serve; a champion that cannot may be why it is replaced.
    """
    answers = check(version, test)
    if test.labels is None:
        return GivenUp(rows=0)
    right = sum(map(str.__eq__, answers, test.labels))
    before = _answers_of(champion, test)
    if before is None:
        return GivenUp(rows=len(answers), right=right)
    rows = list(zip(test.texts, test.labels, answers, before, strict=True))
    return GivenUp(
        rows=len(rows),
        right=right,
        right_before=sum(map(str.__eq__, before, test.labels)),
        wrong_again=[Changed(text, label, new) for text, label, new, old in rows if old == label != new],
        right_again=[Changed(text, label, old) for text, label, new, old in rows if new == label != old],
    )


def check(version: ModelVersion, test: SmokeTest) -> list[str]:
    """A version's answers, loaded from its own files. Raises SmokeTestFailed with what is wrong."""
    name = f"{version.name} version {version.version} ({version.uri})"
    scores = _score(version, test.texts)
    _check_answers(name, version, scores.labels, scores.probabilities, len(test.texts))
    return _named(scores, test)


def _named(scores: "Scores", test: SmokeTest) -> list[str]:
    return [test.label_mapping.get(label, label) for label in scores.predicted]


def _answers_of(champion: ModelVersion | None, test: SmokeTest) -> list[str] | None:
    try:
        return _named(_score(champion, test.texts), test) if champion else None
    except SmokeTestFailed as error:
        logger.warning("what is given up cannot be told: %s", error)
        return None


def _score(version: ModelVersion, texts: Sequence[str]) -> "Scores":
    from include.training.scoring import score

    try:
        return score(version.uri, texts)
    except Exception as error:
        # Files can be broken in any way, and the answer is the same one.
        name = f"{version.name} version {version.version} ({version.uri})"
        raise SmokeTestFailed(f"{name} cannot be scored: {type(error).__name__}: {error}") from error


def _check_answers(name: str, version: ModelVersion, labels: list[str], probabilities: object, rows: int) -> None:
    import numpy as np

    answers = np.asarray(probabilities)
    if answers.shape != (rows, len(labels)):
        raise SmokeTestFailed(f"{name} answers with shape {answers.shape} to {rows} texts and {len(labels)} labels")
    if not np.isfinite(answers).all():
        raise SmokeTestFailed(f"{name} answers with probabilities that are not finite")
    if hash_labels(labels) != version.tags.get(LABELS_HASH):
        raise SmokeTestFailed(f"{name} has other labels than were registered: {labels[:5]} …; its files were changed")
