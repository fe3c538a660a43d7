"""What a version gets wrong on the golden rows: which labels it confuses, and some of the texts; a small JSON file.

Versions of earlier releases have none. Of them the table of confusions in evaluation.json is known, and no texts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

MISTAKES = "mistakes.json"
MOST_PAIRS, MOST_TEXTS = 50, 5


class Mistake(BaseModel):
    """An answer to a golden row, right or wrong; ``confidence`` is the model's own, from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    text: str
    label: str
    predicted: str
    confidence: float


class Confused(BaseModel):
    """How many rows of a label were called another, and those of them that the model was surest about."""

    model_config = ConfigDict(frozen=True)

    label: str
    predicted: str
    count: int
    texts: list[Mistake] = []


class Mistakes(BaseModel):
    """All golden rows, how many were right, and the confusions, the most frequent first; at most ``MOST_PAIRS``."""

    model_config = ConfigDict(frozen=True)

    rows: int
    right: int
    pairs: list[Confused]

    @classmethod
    def of_evaluation(cls, evaluation: Mapping[str, Any]) -> "Mistakes":
        """Those that an evaluation.json of an earlier release tells of: without texts."""
        metrics = evaluation["challenger"]["metrics"]
        labels, table = metrics["labels"], metrics["confusion"]
        pairs = [
            Confused(label=label, predicted=labels[column], count=count)
            for row, label in enumerate(labels)
            for column, count in enumerate(table[row])
            if count and column != row
        ]
        right = sum(table[at][at] for at in range(len(labels)))
        return cls(rows=metrics["rows"], right=right, pairs=_frequent(pairs))


def find_mistakes(answers: Iterable[Mistake]) -> Mistakes:
    """What is wrong of a version's answers."""
    rows, wrong = 0, defaultdict(list)
    for one in answers:
        rows += 1
        if one.label != one.predicted:
            wrong[one.label, one.predicted].append(one)
    pairs = [
        Confused(
            label=label,
            predicted=predicted,
            count=len(found),
            texts=sorted(found, key=lambda one: -one.confidence)[:MOST_TEXTS],
        )
        for (label, predicted), found in wrong.items()
    ]
    return Mistakes(rows=rows, right=rows - sum(map(len, wrong.values())), pairs=_frequent(pairs))


def _frequent(pairs: list[Confused]) -> list[Confused]:
    return sorted(pairs, key=lambda pair: (-pair.count, pair.label, pair.predicted))[:MOST_PAIRS]
