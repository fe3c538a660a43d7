"""What a week's curated texts look like: lengths, labels, typical words, columns, and the drift since last week."""

import heapq
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from include.datasets.checks import normalise

EDGES = (0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120)
"""Lower ends of the bins of text lengths, in characters."""

SHOWN_WORDS = 8
SHOWN_CLASSES = 40
FEWEST = 3  # texts a word has to be in
_WORD = re.compile(r"[^\W\d_]{3,}")


class Exploration(BaseModel):
    """A week in numbers."""

    texts: int = 0
    lengths: list[int] = [0] * len(EDGES)  # texts by bin of ``EDGES``
    labels: dict[str, int] = {}
    sources: dict[str, int] = {}
    words: dict[str, list[str]] = {}  # the words that are typical of a class
    columns: dict[str, int] = {}  # rows in which another column has a value


def explore(rows: Iterable[tuple[str, str, str]], extras: Iterable[str] = ()) -> Exploration:
    """Counts texts, given as text, label and source; ``extras`` are the rows' other columns as JSON."""
    found = Exploration()
    labels: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    words: dict[str, Counter[str]] = {}
    lengths = [0] * len(EDGES)
    for text, label, source in rows:
        labels[label] += 1
        sources[source] += 1
        lengths[_bin(len(text))] += 1
        words.setdefault(label, Counter()).update(set(_WORD.findall(normalise(text))))
    columns: Counter[str] = Counter()
    for extra in extras:
        columns.update(list(json.loads(extra)) if extra else [])
    return found.model_copy(
        update={
            "texts": sum(labels.values()),
            "lengths": lengths,
            "labels": dict(labels.most_common()),
            "sources": dict(sources.most_common()),
            "words": _typical(words, labels),
            "columns": dict(columns.most_common(50)),
        }
    )


def _bin(length: int) -> int:
    return max(at for at, edge in enumerate(EDGES) if length >= edge)


def _typical(words: Mapping[str, Counter[str]], labels: Counter[str]) -> dict[str, list[str]]:
    """The words of each class whose share of its texts is greatest beside their share of all texts."""
    everywhere: Counter[str] = Counter()
    for counter in words.values():
        everywhere.update(counter)
    total = sum(labels.values())

    def weight(label: str, word: str) -> float:
        share, usual = words[label][word] / labels[label], everywhere[word] / total
        return share * math.log(share / usual)

    return {
        label: heapq.nlargest(
            SHOWN_WORDS,
            (word for word, count in words[label].items() if count >= FEWEST and weight(label, word) > 0),
            key=lambda word, label=label: (weight(label, word), word),  # type: ignore[misc]
        )
        for label, _ in labels.most_common(SHOWN_CLASSES)
    }


def distance(before: Mapping[Any, int], now: Mapping[Any, int]) -> float | None:
    """Jensen and Shannon's distance of two mixes, 0 (the same) to 1 (nothing in common); None if one is empty."""
    if not sum(before.values()) or not sum(now.values()):
        return None
    first, second = _shares(before), _shares(now)
    divergence = 0.0
    for name in {*first, *second}:
        one, other = first.get(name, 0.0), second.get(name, 0.0)
        middle = (one + other) / 2
        divergence += sum(part / 2 * math.log2(part / middle) for part in (one, other) if part)
    return round(math.sqrt(max(divergence, 0.0)), 4)


def _shares(counts: Mapping[Any, int]) -> dict[Any, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}
