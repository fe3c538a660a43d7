"""Scores challenger and champion on the same golden rows in one go, and puts together what follows from it."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from include.evaluation.gates import Decision, Thresholds, decide
from include.evaluation.metrics import Flips, Metrics, find_flips, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scores(Protocol):
    """What ``include.training.scoring.score`` returns."""

    @property
    def labels(self) -> Sequence[str]:
        """The model's k labels, in its own order."""

    @property
    def probabilities(self) -> "NDArray[Any]":
        """(n, k), rows in input order."""

    @property
    def predicted(self) -> Sequence[str]:
        """(n,) label strings."""


class FileAccount(BaseModel):
    """Where the rows of one uploaded file went; the same fields as in a run's ``run.json``."""

    model_config = ConfigDict(frozen=True)

    key: str
    rows_in: int
    used: int
    rejected: int
    waiting: int = 0
    by_rule: dict[str, int] = {}
    quarantine: str | None = None
    reason: str = ""
    warnings: list[str] = []


class Context(BaseModel):
    """Where a challenger comes from. Nothing here decides anything; the report and the model card show it."""

    model_config = ConfigDict(frozen=True)

    model_name: str = ""
    base_model: str = ""
    dataset_id: str = ""
    job_id: str = ""
    dag_id: str = ""
    dag_run_id: str = ""
    mlflow_run_id: str = ""
    challenger_version: str = ""
    champion_version: str = ""
    best_epoch: int | None = None
    history: list[dict[str, float]] = []
    files: list[FileAccount] = []
    warnings: list[str] = []  # about all files' rows together


class ScoredModel(BaseModel):
    """One model on the golden set; ``unknown_labels`` are golden classes it cannot name and so gets wrong."""

    model_config = ConfigDict(frozen=True)

    uri: str
    labels: list[str]
    unknown_labels: list[str]
    metrics: Metrics


class Evaluation(BaseModel):
    """All that an evaluation found; JSON-able, so that it can lie in a run's reports as evaluation.json."""

    model_config = ConfigDict(frozen=True)

    golden_hash: str
    golden_rows: int
    thresholds: Thresholds
    challenger: ScoredModel
    champion: ScoredModel | None
    decision: Decision
    flips: Flips | None
    context: Context = Context()


def evaluate(
    golden_texts: Sequence[str],
    golden_labels: Sequence[str],
    challenger_uri: str,
    champion_uri: str | None,
    thresholds: Thresholds,
    *,
    golden_hash: str | None = None,
    context: Context | None = None,
) -> Evaluation:
    """Scores both models on the same n rows and decides.

    ``golden_hash`` is the frozen set's own; without one the hash of the rows as given is recorded. The URIs are those
    of model folders. Raises ValueError if texts and labels differ in number or there are none, and whatever scoring
    raises.
    """
    from include.training.scoring import score

    return assess(
        golden_texts,
        golden_labels,
        (challenger_uri, score(challenger_uri, golden_texts)),
        None if champion_uri is None else (champion_uri, score(champion_uri, golden_texts)),
        thresholds,
        golden_hash=golden_hash,
        context=context,
    )


def assess(
    golden_texts: Sequence[str],
    golden_labels: Sequence[str],
    challenger: tuple[str, Scores],
    champion: tuple[str, Scores] | None,
    thresholds: Thresholds,
    *,
    golden_hash: str | None = None,
    context: Context | None = None,
) -> Evaluation:
    """``evaluate`` for models that have been scored: each is its URI and its scores of the n golden rows, in order."""
    if len(golden_texts) != len(golden_labels):
        raise ValueError(f"the golden set has {len(golden_texts)} texts but {len(golden_labels)} labels")
    predicted = list(challenger[1].predicted)
    before = None if champion is None else list(champion[1].predicted)
    return Evaluation(
        golden_hash=golden_hash or hash_rows(golden_texts, golden_labels),
        golden_rows=len(golden_texts),
        thresholds=thresholds,
        decision=decide(golden_labels, predicted, before, thresholds),
        challenger=_scored(challenger, golden_labels),
        champion=None if champion is None else _scored(champion, golden_labels),
        flips=None
        if champion is None
        else find_flips(golden_texts, golden_labels, _confident(champion[1]), _confident(challenger[1])),
        context=context or Context(),
    )


def hash_rows(texts: Sequence[str], labels: Sequence[str]) -> str:
    """SHA-256 of the (text, label) pairs, in whatever order they come."""
    rows = sorted(zip(texts, labels, strict=True))
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def _scored(model: tuple[str, Scores], golden_labels: Sequence[str]) -> ScoredModel:
    uri, scores = model
    return ScoredModel(
        uri=uri,
        labels=list(scores.labels),
        unknown_labels=sorted(set(golden_labels) - set(scores.labels)),
        metrics=measure(golden_labels, list(scores.predicted)),
    )


def _confident(scores: Scores) -> list[tuple[str, float]]:
    return list(zip(scores.predicted, scores.probabilities.max(axis=1).tolist(), strict=True))
