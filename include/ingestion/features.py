"""The other columns of a week's rows as numbers: categories get codes, numbers are scaled.

What a column is, is decided once, by the week in which it first has enough values, and kept: a code means the same in
every later week, and so does a scaled number. Ids, dates and prose get no number and stay as they came.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel

FEWEST = 20  # values by which a column is judged
MOST_CATEGORIES = 50
FEWEST_OF_EACH = 2.0  # rows of a category, on average: names and ids have about one
CLEAR = 0.98  # share of values that have to be numbers
SAMPLE = 20_000  # values by which a column is judged, at most
MOST_COLUMNS = 100
UNKNOWN = -1
"""The code of a category that came when a column had as many as it may have."""

_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d{0,14})(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")
_WHOLE = re.compile(r"[+-]?\d+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}(?: .*)?|\d\d:\d\d(?::\d\d)?")


class Encoder(BaseModel):
    """How one column's values become numbers: ``(x - mean) / deviation``, or a category's place in the list."""

    kind: Literal["number", "category"]
    mean: float = 0.0
    deviation: float = 1.0
    categories: list[str] = []

    def learn(self, values: Iterable[str]) -> None:
        """Adds categories that are new, in alphabetical order, while there is room."""
        if self.kind == "category":
            fresh = sorted({*values} - {*self.categories, ""})
            self.categories += fresh[: MOST_CATEGORIES - len(self.categories)]

    def encode(self, value: str) -> float | None:
        """A value's number; None for an empty one, or for what is no number in a column of numbers."""
        if not value:
            return None
        if self.kind == "category":
            return float(self.categories.index(value)) if value in self.categories else float(UNKNOWN)
        return (float(value) - self.mean) / self.deviation if _NUMBER.fullmatch(value) else None


def kind_of(values: Sequence[str]) -> Literal["number", "category", ""]:
    """What a column is by its values, none of them empty; "" for ids, dates, prose, and too few to tell.

    Numbers with leading zeros are ids, whole numbers that hardly ever repeat too.
    """
    if len(values) < FEWEST:
        return ""
    counts = Counter(values)
    repeat = len(values) / len(counts) >= FEWEST_OF_EACH
    if sum(bool(_DATE.fullmatch(value)) for value in values) > (1 - CLEAR) * len(values):
        return ""
    whole = sum(bool(_WHOLE.fullmatch(value)) for value in values)
    if any(_WHOLE.fullmatch(value) and value.lstrip("+-").startswith("0") and len(value) > 1 for value in counts):
        return ""
    if sum(bool(_NUMBER.fullmatch(value)) for value in values) >= CLEAR * len(values):
        return "number" if repeat or whole < len(values) / 2 else ""
    return "category" if repeat and len(counts) <= MOST_CATEGORIES else ""


def encoder_of(values: Sequence[str]) -> Encoder | None:
    """The encoder of a column that has none yet; None if its values are none that get numbers."""
    kind = kind_of(values)
    if kind == "category":
        return Encoder(kind="category")  # its categories it learns
    if kind == "number":
        numbers = [float(value) for value in values if _NUMBER.fullmatch(value)]
        mean = math.fsum(numbers) / len(numbers)
        variance = math.fsum((number - mean) ** 2 for number in numbers) / len(numbers)
        return Encoder(kind="number", mean=mean, deviation=math.sqrt(variance) or 1.0)
    return None


def as_columns(extras: Sequence[str]) -> dict[str, list[str]]:
    """The other columns of some rows, given as JSON each: by name the values as text, empty where a row has none."""
    rows = [json.loads(extra) if extra else {} for extra in extras]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_text(row.get(name)) for row in rows] for name in names}


def _text(value: object) -> str:
    if value is None:
        return ""
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).strip()


class Profile:
    """What is seen of columns as their values come part by part."""

    def __init__(self) -> None:
        self.samples: dict[str, list[str]] = {}
        self.distinct: dict[str, set[str]] = {}

    def see(self, columns: dict[str, list[str]]) -> None:
        """Takes some rows' values; of more than ``MOST_COLUMNS`` columns, those that came first."""
        for name, values in columns.items():
            if name not in self.samples and len(self.samples) == MOST_COLUMNS:
                continue
            sample, distinct = self.samples.setdefault(name, []), self.distinct.setdefault(name, set())
            given = [value for value in values if value]
            sample += given[: SAMPLE - len(sample)]
            if len(distinct) <= SAMPLE:
                distinct.update(given)

    def encoders(self, known: dict[str, Encoder]) -> dict[str, Encoder]:
        """Those that are known, with what they learn, and those of columns that are new."""
        found = {name: encoder.model_copy(deep=True) for name, encoder in known.items()}
        for name, sample in self.samples.items():
            if name not in found and (encoder := encoder_of(sample)):
                found[name] = encoder
        for name, encoder in found.items():
            encoder.learn(self.distinct.get(name, ()))
        return found


def encoded(columns: dict[str, list[str]], encoders: dict[str, Encoder], rows: int) -> dict[str, list[float | None]]:
    """Each column that has an encoder, as numbers; one that none of these rows has is empty."""
    return {
        name: [encoder.encode(value) for value in columns[name]] if name in columns else [None] * rows
        for name, encoder in encoders.items()
    }
