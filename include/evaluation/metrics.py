"""What two models got right and wrong on the same rows, as values that can be stored and drawn."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

MAX_FLIPS = 100
MAX_TEXT = 400


class ClassScore(BaseModel):
    """One class on the golden set; ``support`` is its number of golden rows."""

    model_config = ConfigDict(frozen=True)

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Metrics(BaseModel):
    """One model on the golden set. ``confusion[i][j]`` counts rows of ``labels[i]`` that were called ``labels[j]``."""

    model_config = ConfigDict(frozen=True)

    rows: int
    accuracy: float
    macro_f1: float
    classes: list[ClassScore]
    labels: list[str]
    confusion: list[list[int]]


class Flip(BaseModel):
    """A golden row on which exactly one of the two models is right; confidences are each model's own, from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    text: str
    label: str
    champion: str
    champion_confidence: float
    challenger: str
    challenger_confidence: float


class Flips(BaseModel):
    """The rows a challenger fixes and breaks: how many, and those it is surest about."""

    model_config = ConfigDict(frozen=True)

    fixed_count: int
    broken_count: int
    fixed: list[Flip]
    broken: list[Flip]


class Confusion(BaseModel):
    """How many rows of one class were called another."""

    model_config = ConfigDict(frozen=True)

    label: str
    predicted: str
    count: int
    share: float


def measure(labels: Sequence[str], predicted: Sequence[str]) -> Metrics:
    """Scores predictions (n,) against true labels (n,), n > 0.

    ``classes`` and ``macro_f1`` are over the classes the golden set has, so that two models with different classes are
    measured by the same rule; the confusion matrix shows every class that either side names.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    golden = sorted(set(labels))
    scores = precision_recall_fscore_support(labels, predicted, labels=golden, zero_division=0)
    classes = [
        ClassScore(label=label, precision=precision, recall=recall, f1=f1, support=support)
        for label, precision, recall, f1, support in zip(golden, *scores, strict=True)
    ]
    names = sorted(set(labels) | set(predicted))
    return Metrics(
        rows=len(labels),
        accuracy=accuracy_score(labels, predicted),
        macro_f1=sum(score.f1 for score in classes) / len(classes),
        classes=classes,
        labels=names,
        confusion=confusion_matrix(labels, predicted, labels=names).tolist(),
    )


def most_confused(metrics: Metrics, limit: int = 20) -> list[Confusion]:
    """The pairs of classes with the most errors, the most frequent first; ``share`` is of the true class's rows."""
    pairs = [
        Confusion(label=label, predicted=metrics.labels[column], count=count, share=count / sum(row))
        for index, (label, row) in enumerate(zip(metrics.labels, metrics.confusion, strict=True))
        for column, count in enumerate(row)
        if count and column != index
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.label, pair.predicted))[:limit]


def find_flips(
    texts: Sequence[str],
    labels: Sequence[str],
    champion: Sequence[tuple[str, float]],
    challenger: Sequence[tuple[str, float]],
) -> Flips:
    """Compares two models' (prediction, confidence) pairs row by row; all four arguments are (n,) and in one order.

    At most ``MAX_FLIPS`` rows of either kind are kept, those the challenger is surest about, and long texts are cut;
    the counts are of all.
    """
    fixed: list[Flip] = []
    broken: list[Flip] = []
    for text, label, (old, old_confidence), (new, new_confidence) in zip(
        texts, labels, champion, challenger, strict=True
    ):
        if (old == label) == (new == label):
            continue
        flip = Flip(
            text=cut(text),
            label=label,
            champion=old,
            champion_confidence=old_confidence,
            challenger=new,
            challenger_confidence=new_confidence,
        )
        (fixed if new == label else broken).append(flip)
    return Flips(fixed_count=len(fixed), broken_count=len(broken), fixed=_surest(fixed), broken=_surest(broken))


def cut(text: str) -> str:
    """A text as it is shown: of a long one its beginning."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _surest(flips: list[Flip]) -> list[Flip]:
    return sorted(flips, key=lambda flip: -flip.challenger_confidence)[:MAX_FLIPS]
