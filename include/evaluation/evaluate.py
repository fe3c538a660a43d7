"""Scores challenger, champion and anchor on the same golden rows in one go, and puts together what follows from it."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from include.evaluation.answers import MODELS, Answer, keys_of
from include.evaluation.counting import Known
from include.evaluation.gates import Decision, Thresholds, decide
from include.evaluation.metrics import Flips, Metrics, cut, find_flips, measure
from include.evaluation.words import without_outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scores(Protocol):
    """What ``include.training.scoring.score`` returns."""

    @property
    def labels(self) -> Sequence[str]:
        """The model's k labels, in its own order."""

    @property
    def probabilities(self) -> "NDArray[Any]":
        """One row of k or more numbers for each of n texts, in input order."""

    @property
    def predicted(self) -> Sequence[str]:
        """The most probable label of each row, in input order."""


@dataclass(frozen=True)
class Renamed:
    """A model's scores with its labels' new names: a label of several old ones is answered where any of them is."""

    scores: Scores
    mapping: Mapping[str, str]

    @property
    def labels(self) -> list[str]:
        """The labels by their present names, each once."""
        return list(dict.fromkeys(self.mapping.get(label, label) for label in self.scores.labels))

    @property
    def probabilities(self) -> "NDArray[Any]":
        """One row for each text, one column for each label by its old name."""
        return self.scores.probabilities

    @property
    def predicted(self) -> list[str]:
        """The new names of what the model answers."""
        return [self.mapping.get(label, label) for label in self.scores.predicted]


class ShownFile(BaseModel):
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
    """Where a challenger comes from. Nothing here decides anything; the report and the model card show it.

    Only ``label_mapping`` does: golden rows and all models' answers have the new names of labels by it.
    """

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
    anchor_version: str = ""  # empty: the champion is the anchor
    label_mapping: dict[str, str] = {}  # old names, and the new ones that they count as
    best_epoch: int | None = None
    history: list[dict[str, float]] = []
    files: list[ShownFile] = []
    warnings: list[str] = []  # about all files' rows together


class ScoredModel(BaseModel):
    """One model on the golden set; ``unknown_labels`` are golden classes it cannot name and so gets wrong."""

    model_config = ConfigDict(frozen=True)

    uri: str
    labels: list[str]
    unknown_labels: list[str]
    metrics: Metrics


class Part(BaseModel):
    """Some of the golden rows, and how many of them each model has right."""

    model_config = ConfigDict(frozen=True)

    rows: int
    challenger: int
    champion: int | None = None
    anchor: int | None = None


class PersonsDecision(BaseModel):
    """What a person said about a challenger that had waited for it."""

    model_config = ConfigDict(frozen=True)

    promote: bool
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{'approved' if self.promote else 'rejected'} by {self.name}: {self.reason.rstrip('. ')}"


class Evaluation(BaseModel):
    """All that an evaluation found; JSON-able, so that it can lie in a run's reports as evaluation.json.

    The models' ``metrics`` are over all golden rows; ``established`` and ``new`` are how the rows that judge and those
    that came with this upload fare by themselves. ``answers`` are kept beside the JSON, in a file of their own.
    """

    model_config = ConfigDict(frozen=True)

    golden_hash: str
    golden_rows: int
    thresholds: Thresholds
    challenger: ScoredModel
    champion: ScoredModel | None
    anchor: ScoredModel | None = None
    established: Part | None = None  # None, as is new: by a version that did not tell them apart
    new: Part | None = None
    new_by_class: dict[str, int] = {}
    decision: Decision
    flips: Flips | None
    context: Context = Context()
    by_person: PersonsDecision | None = None  # where one was asked
    answers: list[Answer] = Field([], exclude=True, repr=False)

    @property
    def reason(self) -> str:
        """Why, in words that begin with the verdict; a person's before those of the gates."""
        if self.by_person is None:
            return self.decision.reason
        return f"{self.verdict.capitalize()}: {self.by_person}. {without_outcome(self.decision.reason)}"

    @property
    def verdict(self) -> Literal["promoted", "rejected", "awaiting_approval"]:
        """What becomes of the challenger, by the gates and by who has the last word."""
        if self.by_person is not None:
            return "promoted" if self.by_person.promote else "rejected"
        if not self.decision.promote:
            return "rejected"
        return "promoted" if self.thresholds.promotion == "automatic" else "awaiting_approval"


def evaluate(
    golden_texts: Sequence[str],
    golden_labels: Sequence[str],
    challenger_uri: str,
    champion_uri: str | None,
    thresholds: Thresholds,
    *,
    anchor_uri: str | None = None,
    established: Sequence[bool] | None = None,
    keys: Sequence[str] | None = None,
    golden_hash: str | None = None,
    context: Context | None = None,
) -> Evaluation:
    """Scores the models on the same n rows, each model once, and decides.

    The URIs are those of model folders; an anchor that is the champion may be left out. ``established`` says which rows
    judge (None: all), ``keys`` what they are called in the answers. ``golden_hash`` is the golden set's own; without
    one the hash of the rows as given is recorded. A model that answers with an old name of a label, by the context's
    mapping, means the new one, which the golden rows have. Raises ValueError if the sequences differ in length or there
    are no rows, and whatever scoring raises.
    """
    from include.training.scoring import score

    models = (challenger_uri, champion_uri, None if anchor_uri == champion_uri else anchor_uri)
    mapping = context.label_mapping if context else {}
    scores = {uri: Renamed(score(uri, golden_texts), mapping) for uri in dict.fromkeys(models) if uri is not None}
    challenger, champion, anchor = (None if uri is None else (uri, scores[uri]) for uri in models)
    assert challenger is not None
    return assess(
        golden_texts,
        golden_labels,
        challenger,
        champion,
        thresholds,
        anchor=anchor,
        established=established,
        keys=keys,
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
    anchor: tuple[str, Scores] | None = None,
    established: Sequence[bool] | None = None,
    keys: Sequence[str] | None = None,
    golden_hash: str | None = None,
    context: Context | None = None,
) -> Evaluation:
    """``evaluate`` for models that have been scored: each is its URI and its scores of the n golden rows, in order."""
    if len(golden_texts) != len(golden_labels):
        raise ValueError(f"the golden set has {len(golden_texts)} texts but {len(golden_labels)} labels")
    if champion is None:  # the first model: nothing to compare with, and no row that could be too new to judge
        anchor = established = None
    models = (challenger, champion, anchor)
    predicted = [None if model is None else list(model[1].predicted) for model in models]
    decision = decide(
        golden_labels,
        list(challenger[1].predicted),
        predicted[1],
        predicted[2],
        thresholds,
        established=established,
        known=Known(*(None if model is None else list(model[1].labels) for model in models)),
    )
    judging = [True] * len(golden_labels) if established is None else list(established)
    context = context or Context()
    return Evaluation(
        golden_hash=golden_hash or hash_rows(golden_texts, golden_labels),
        golden_rows=len(golden_texts),
        thresholds=thresholds,
        decision=decision,
        challenger=_scored(challenger, golden_labels),
        champion=None if champion is None else _scored(champion, golden_labels),
        anchor=None if anchor is None else _scored(anchor, golden_labels),
        established=_part(golden_labels, predicted, judging),
        new=_part(golden_labels, predicted, [not judges for judges in judging]),
        new_by_class=Counter(label for label, judges in zip(golden_labels, judging, strict=True) if not judges),
        flips=None
        if champion is None
        else find_flips(golden_texts, golden_labels, _confident(champion[1]), _confident(challenger[1])),
        context=context,
        answers=_answers(keys or keys_of(golden_texts), golden_texts, golden_labels, judging, models, context),
    )


def _part(labels: Sequence[str], predicted: Sequence[Sequence[str] | None], of: Sequence[bool]) -> Part:
    rows = [row for row, is_in in enumerate(of) if is_in]
    right = [None if answers is None else sum(answers[row] == labels[row] for row in rows) for answers in predicted]
    return Part(rows=len(rows), challenger=right[0] or 0, champion=right[1], anchor=right[2])


def _answers(
    keys: Sequence[str],
    texts: Sequence[str],
    labels: Sequence[str],
    established: Sequence[bool],
    models: Sequence[tuple[str, Scores] | None],
    context: Context,
) -> list[Answer]:
    versions = (context.challenger_version, context.champion_version, context.anchor_version)
    return [
        Answer(key, label, judges, name, version, model[0], *answer, cut(text))
        for name, version, model in zip(MODELS, versions, models, strict=True)
        if model is not None
        for key, text, label, judges, answer in zip(keys, texts, labels, established, _confident(model[1]), strict=True)
    ]


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
