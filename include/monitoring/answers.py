"""Reading the prediction log's files: what the model server answered, any of it as a sample, and sums of it."""
# ruff: noqa: TID253 - sums over arrays are what this module is about

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel

from include.monitoring import days
from include.monitoring.days import Days, Floats
from include.serving import prediction_log

BINS = 200  # of the answers' confidence, from 0 to 1
REQUIRED = ("id", "at", "version", "label", "probability")  # of a file's columns; older files lack others
ROWS_AT_ONCE = 20_000  # of a file: of many labels the answers of a whole one would be large


class DaySums(BaseModel):
    """A day of one champion, as it is kept.

    ``texts`` are those in the sums; ``answered`` of the day's ``of`` texts were answered by this version itself. If the
    day was ``scored_again``, ``of`` are those that were looked at. ``confidence`` counts texts in ``BINS`` equal steps,
    ``seen`` tells the files that the log had then.
    """

    day: date
    version: str
    answered: int
    of: int
    scored_again: bool
    texts: int
    labels: list[str]
    label_sums: list[float]
    label_squares: list[float]
    measures: dict[str, tuple[float, float]]
    predicted: dict[str, int]
    confidence: list[int]
    seen: str

    @property
    def days(self) -> Days:
        """These sums as the drift test takes them: one day."""
        names = tuple(name for name in days.MEASURES if name in self.measures)
        sums = np.array([self.measures[name] for name in names]).reshape(len(names), 2)
        return Days(
            np.array([float(self.texts)]),
            tuple(self.labels),
            np.array([self.label_sums]),
            np.array([self.label_squares]),
            names,
            sums[:, 0][None],
            sums[:, 1][None],
        )


def some_files(files: Iterable[str], most: int) -> Iterator[pa.Table]:
    """Answers of files in an order of chance that is always the same, until there are enough with a text."""
    rows = 0
    for _, table in whole_files(sorted(files, key=lambda uri: hashlib.sha256(uri.encode()).digest()), []):
        for part in asked(table):
            rows += len(part) - part["text"].null_count
            yield part.drop_columns(["probabilities"])
        if rows >= most:
            return


def with_text(rows: pa.Table) -> pa.Table:
    """Those of which the log has the text."""
    return rows.filter(pc.field("text").is_valid())


def whole_files(files: Iterable[str], faults: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Files whose columns are as the log's; of the others the faults are told."""
    for uri, table in prediction_log.raw_files(files, faults):
        if told := _fault(table.schema):
            faults.append(f"{uri}: {told}")
        else:
            yield uri, table


def _fault(schema: pa.Schema) -> str:
    """What is wrong with a file's columns; empty if nothing is, as where it has more of them."""
    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        return f"it has no column {', '.join(missing)}"
    wrong = [
        f"{field.name} is {schema.field(field.name).type} and not {field.type}"
        for field in prediction_log.SCHEMA
        if field.name in schema.names and _kind(schema.field(field.name).type) != _kind(field.type)
    ]
    return ", ".join(wrong)


def _kind(of: pa.DataType) -> str:
    """What counts of a type: other writers' texts may be large, and their floats double."""
    if pa.types.is_dictionary(of):
        of = of.value_type
    for name, holds in (
        ("text", pa.types.is_string), ("text", pa.types.is_large_string), ("number", pa.types.is_floating),
        ("time", pa.types.is_timestamp), ("map", pa.types.is_map),
    ):  # fmt: skip
        if holds(of):
            return name
    return str(of)


def asked(table: pa.Table) -> Iterator[pa.Table]:
    """What the model server answered, in parts: no shadow's word, no batch, no weekly ETL."""
    source, role = pc.field("source"), pc.field("role")
    by_server = source.is_null() | (source == "server")
    mine = prediction_log.fitted(table, prediction_log.SCHEMA).filter(by_server & (role.is_null() | (role != "shadow")))
    for start in range(0, len(mine), ROWS_AT_ONCE):
        yield mine.slice(start, ROWS_AT_ONCE)


class Sampling:
    """Keeps the rows whose ids have the lowest hashes: any are as likely, and the same each time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: list[pa.Table] = []
        self._places: list[NDArray[np.uint64]] = []
        self._rows = 0
        self._schema = pa.schema([field for field in prediction_log.SCHEMA if field.name != "probabilities"])

    def add(self, rows: pa.Table) -> None:
        """Looks at rows, of which some may be kept."""
        from pandas.util import hash_array

        places = hash_array(np.array(rows["id"].to_pylist(), dtype=object)) if len(rows) else np.empty(0, np.uint64)
        self._kept.append(rows)
        self._places.append(places)
        self._rows += len(rows)
        if self._rows > 2 * self.most:
            self._cut()

    def _cut(self) -> None:
        places = np.concatenate(self._places)
        chosen = np.sort(np.argsort(places, kind="stable")[: self.most])
        self._kept, self._places = [pa.concat_tables(self._kept).take(chosen)], [places[chosen]]
        self._rows = len(chosen)

    @property
    def table(self) -> pa.Table:
        """What is kept, in the order in which it came."""
        if not self._kept:
            return self._schema.empty_table()
        self._cut()
        return self._kept[0]


class Adding:
    """Adds up a day's answers while they are read, part by part."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._places = {label: place for place, label in enumerate(self.labels)}
        self._parts: list[Days] = []
        self._predicted = np.zeros(len(self.labels), np.int64)
        self._confidence = np.zeros(BINS, np.int64)
        self._answered = 0

    def add_answers(self, rows: pa.Table) -> None:
        """Adds rows of the prediction log. Raises KeyError with a label that is none of the champion's."""
        self._answered += len(rows)
        known = rows.filter(pc.field("probabilities").is_valid())
        if len(known):
            texts = known["text"]
            characters = None if texts.null_count else pc.utf8_length(texts).to_numpy()
            self.add(self._matrix(known["probabilities"]), characters)

    def add(self, answers: Floats, characters: Sequence[int] | NDArray[np.int64] | None) -> None:
        """Adds answers.

        Args:
            answers: (texts, labels) probabilities.
            characters: each text's length; None where the log has no texts.
        """
        part = days.day_of(self.labels, answers, characters)
        self._parts = [days.add([*self._parts, part])]
        self._predicted += np.bincount(answers.argmax(1), minlength=len(self.labels))
        steps = np.minimum((answers.max(1) * BINS).astype(np.int64), BINS - 1)
        self._confidence += np.bincount(np.maximum(steps, 0), minlength=BINS)

    def _matrix(self, column: pa.ChunkedArray) -> Floats:
        maps = column.combine_chunks()
        offsets = maps.offsets.to_numpy()
        names = maps.keys[offsets[0] : offsets[-1]].dictionary_encode()
        places = np.array([self._places[name] for name in names.dictionary.to_pylist()], np.int64)
        found = np.zeros((len(maps), len(self.labels)))
        rows = np.repeat(np.arange(len(maps)), np.diff(offsets))
        found[rows, places[names.indices.to_numpy()]] = maps.items[offsets[0] : offsets[-1]].to_numpy()
        return found

    def of_day(self, day: date, version: str, *, of: int, seen: str, scored_again: bool = False) -> DaySums:
        """The sums of all that was added, as they are kept."""
        empty = days.day_of(self.labels, np.empty((0, len(self.labels))), [])
        (sums,) = self._parts or [empty]
        both = zip(sums.measures, sums.measure_sums[0].tolist(), sums.measure_squares[0].tolist(), strict=True)
        return DaySums(
            day=day,
            version=version,
            answered=self._answered,
            of=of,
            scored_again=scored_again,
            texts=int(sums.texts[0]),
            labels=list(self.labels),
            label_sums=sums.label_sums[0].tolist(),
            label_squares=sums.label_squares[0].tolist(),
            measures={name: (total, square) for name, total, square in both},
            predicted={label: int(n) for label, n in zip(self.labels, self._predicted, strict=True) if n},
            confidence=self._confidence.tolist(),
            seen=seen,
        )
