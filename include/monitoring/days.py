"""A day's answers as the few sums that the drift test needs, so that months of them are a small table."""
# ruff: noqa: TID253 - sums over arrays are what this module is about

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MEASURES = ("confidence", "log_characters")
"""All that is watched of each text beside the labels, in their order."""


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
        """The days of this slice, or at which this mask is true."""
        return Days(
            self.texts[which],
            self.labels,
            self.label_sums[which],
            self.label_squares[which],
            self.measures,
            self.measure_sums[which],
            self.measure_squares[which],
        )


def day_of(labels: Sequence[str], probabilities: ArrayLike, characters: ArrayLike | None) -> Days:
    """One day, or a part of it.

    Args:
        labels: the champion's labels.
        probabilities: (texts, labels) its answers.
        characters: (texts,) lengths of the texts; None if the texts are not kept.
    """
    answers = np.asarray(probabilities, np.float64)
    answers = answers.reshape(len(answers), len(labels))
    measures = _measures(answers, None if characters is None else np.asarray(characters, np.float64))
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
    """Days one after another, of one champion, with the measures that all of them know.

    Lengths are not known of days whose texts were not kept. Raises ValueError if the days' labels differ.
    """
    first = days[0]
    if any(one.labels != first.labels for one in days):
        raise ValueError("these days are of champions with different labels: score the older ones again first")
    known = [set(one.measures) for one in days if one.texts.sum()] or [set(first.measures)]
    measures = tuple(name for name in MEASURES if all(name in mine for mine in known))
    columns = ("texts", "label_sums", "label_squares")
    found = {name: np.concatenate([getattr(one, name) for one in days]) for name in columns}
    of_measures = {
        name: np.concatenate([_columns(getattr(one, name), one.measures, measures) for one in days])
        for name in ("measure_sums", "measure_squares")
    }
    return Days(labels=first.labels, measures=measures, **found, **of_measures)


def add(parts: Sequence[Days]) -> Days:
    """Parts of one day as that day."""
    together = join(parts)
    columns = ("texts", "label_sums", "label_squares", "measure_sums", "measure_squares")
    return replace(together, **{name: getattr(together, name).sum(0, keepdims=True) for name in columns})


def _columns(values: Floats, names: tuple[str, ...], wanted: tuple[str, ...]) -> Floats:
    """Some of the columns; of days without a text those that they lack are zero."""
    empty = np.zeros(len(values))
    chosen = [values[:, names.index(name)] if name in names else empty for name in wanted]
    found: Floats = np.stack(chosen, 1) if chosen else np.empty((len(values), 0))
    return found


def _measures(answers: Floats, characters: Floats | None) -> Mapping[str, Floats]:
    """What is watched of each text, beside the labels."""
    confidence = {"confidence": answers.max(1, initial=0.0)}
    return confidence if characters is None else confidence | {"log_characters": np.log1p(characters)}
