"""A day's answers as the few sums that the drift test needs, so that months of them are a small table."""
# ruff: noqa: TID253 - sums over arrays are what this module is about

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Days:
    """Days of one champion's traffic, the oldest first.

    Args:
        texts: (days,) texts answered.
        labels: the champion's labels, of the columns below.
        label_sums: (days, labels) each label's probability, summed over the day's texts.
        label_squares: (days, labels) the same of squared probabilities.
        measures: names of other numbers known of each text, as "confidence".
        measure_sums: (days, measures) summed over the day's texts.
        measure_squares: (days, measures) the same of squares.
    """

    texts: Floats
    labels: tuple[str, ...]
    label_sums: Floats
    label_squares: Floats
    measures: tuple[str, ...]
    measure_sums: Floats
    measure_squares: Floats

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> "Days":
        """Some of the days."""
        return Days(
            self.texts[which],
            self.labels,
            self.label_sums[which],
            self.label_squares[which],
            self.measures,
            self.measure_sums[which],
            self.measure_squares[which],
        )


def day_of(labels: Sequence[str], probabilities: ArrayLike, characters: ArrayLike) -> Days:
    """One day.

    Args:
        labels: the champion's labels.
        probabilities: (texts, labels) its answers.
        characters: (texts,) lengths of the texts.
    """
    answers = np.asarray(probabilities, np.float64).reshape(-1, len(labels))
    measures = _measures(answers, np.asarray(characters, np.float64))
    values = np.stack(list(measures.values()), 1)
    return Days(
        np.array([float(len(answers))]),
        tuple(labels),
        answers.sum(0)[None],
        (answers**2).sum(0)[None],
        tuple(measures),
        values.sum(0)[None],
        (values**2).sum(0)[None],
    )


def join(days: Sequence[Days]) -> Days:
    """Days one after another, of one champion. Raises ValueError if their labels or measures differ."""
    first = days[0]
    if any((one.labels, one.measures) != (first.labels, first.measures) for one in days):
        raise ValueError("these days are of champions with different labels: score the older ones again first")
    columns = ("texts", "label_sums", "label_squares", "measure_sums", "measure_squares")
    found = {name: np.concatenate([getattr(one, name) for one in days]) for name in columns}
    return Days(labels=first.labels, measures=first.measures, **found)


def _measures(answers: Floats, characters: Floats) -> Mapping[str, Floats]:
    """What is watched of each text, beside the labels."""
    return {"confidence": answers.max(1, initial=0.0), "log_characters": np.log1p(characters)}
