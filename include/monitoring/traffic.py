"""A champion's traffic day by day, out of the prediction log: sums that are made once and kept, and some of the texts.

A day is what the model server was asked on it (UTC). If the champion of today answered at least half of that, its own
answers are the day. Otherwise some of the day's texts are scored again with it, any text as likely as another: so a new
champion has a past to be compared with. Days on which nothing was asked are days, too. What a batch or the weekly ETL
has scored is no traffic.
"""
# ruff: noqa: TID253 - sums over arrays are what this module is about

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel
from sqlalchemy.engine import Engine

from include import lake
from include.monitoring import days
from include.monitoring.days import Days, Floats
from include.registry import ledger, models
from include.serving import prediction_log
from include.serving.prediction_log import folder

logger = logging.getLogger(__name__)

MOST_SAMPLED = 10_000  # of a day's rows, for the checks of texts
MOST_RESCORED = 2_000  # of a day's texts: the drift test counts that they are a sample
LATE_DAYS = 3  # a server that had no bucket, or a batch of the night, writes into a day that was read already
BINS = 200  # of the answers' confidence, from 0 to 1
REQUIRED = ("id", "at", "version", "label", "probability")  # of a file's columns; older files lack others
ROWS_AT_ONCE = 20_000  # of a file: of many labels the answers of a whole one would be large

Score = Callable[[list[str]], NDArray[np.float32]]
"""Texts to (texts, labels) probabilities."""


@dataclass(frozen=True)
class Champion:
    """The version whose traffic is watched.

    Args:
        model: the registered model's name.
        version: its version.
        uri: where its files lie.
        labels: in its own order.
        since: when it became the champion.
    """

    model: str
    version: str
    uri: str
    labels: tuple[str, ...]
    since: datetime


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
        """As the drift test takes it."""
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


@dataclass(frozen=True, eq=False)
class Look:
    """What the log has of a day.

    Args:
        sums: the champion's own answers; without a champion no text is in them.
        sample: at most ``MOST_SAMPLED`` of the day's rows, any as likely as another, without their probabilities.
        faults: files that are not as the log's should be, a sentence each.
        news: columns that the log is not known to have.
    """

    sums: DaySums
    sample: pa.Table
    faults: tuple[str, ...]
    news: tuple[str, ...]


def champion_of(model: str, engine: Engine, now: datetime) -> Champion | None:
    """Who was champion at a time, by the ledger; None if nobody was, or if the version is gone."""
    move = ledger.last_move(engine, model, before=now)
    found = models.by_version(model, move.version) if move else None
    if move is None or found is None or not models.is_complete(found.uri):
        return None
    return Champion(model, move.version, found.uri, tuple(models.labels_of(found.uri)), move.decided_at)


@contextmanager
def scorer(champion: Champion) -> Iterator[Score]:
    """A champion that is loaded when it is first asked."""
    with ExitStack() as held:
        loaded: list[object] = []

        def score(texts: list[str]) -> NDArray[np.float32]:
            from include.training.scoring import Scorer

            if not loaded:
                loaded.append(Scorer(str(held.enter_context(lake.local(champion.uri)))))
            mine = loaded[0]
            assert isinstance(mine, Scorer)
            return mine.probabilities(mine.tokenize(texts))

        yield score


def look(model: str, day: date, champion: Champion | None) -> Look:
    """Reads a day of the log, file by file, and keeps the champion's sums if it answered most of the day."""
    files = lake.find(folder(model, day.isoformat()))
    sums = _Adding(champion.labels if champion else ())
    sample, faults, news, of = _Sample(MOST_SAMPLED), list[str](), dict[str, None](), 0
    for uri, table in _whole_files(files, faults):
        news |= dict.fromkeys(name for name in table.column_names if name not in prediction_log.SCHEMA.names)
        for part in _asked(table):
            of += len(part)
            sample.add(part.drop_columns(["probabilities"]))
            if champion:
                try:
                    sums.add_answers(part.filter(pc.field("version") == champion.version))
                except KeyError as error:
                    faults.append(f"{uri}: version {champion.version} has no label {error}, which it is said to answer")
    found = sums.of_day(day, champion.version if champion else "", of=of, seen=_seen(files))
    if champion and 2 * found.answered >= of:
        _keep(champion.model, found)
    return Look(found, sample.table, tuple(faults), tuple(news))


def day_of(champion: Champion, day: date, now: datetime, score: Score) -> DaySums | None:
    """A champion's sums of a day: as they were kept, from its answers, or of texts that are scored again with it.

    None if others answered it and their texts are not in the log (BERT_LOG_TEXTS).
    """
    uri = lake.daily_sums(champion.model, champion.version, day.isoformat())
    kept = DaySums.model_validate(lake.read_json(uri)) if lake.exists(uri) else None
    if kept and (kept.scored_again or now.date() - day > timedelta(days=LATE_DAYS)):
        return kept
    if kept and kept.seen == _seen(lake.find(folder(champion.model, day.isoformat()))):
        return kept
    if day >= champion.since.astimezone(UTC).date():
        found = look(champion.model, day, champion).sums
        if 2 * found.answered >= found.of:
            return found
    return _score_again(champion, day, score)


def days_until(champion: Champion, first: date, last: date, now: datetime, score: Score) -> tuple[list[DaySums], str]:
    """A champion's days from one to another without a gap, and why there are fewer, if there are.

    The days begin with the log, or after the last day that is not known.
    """
    begins = first_day(champion.model)
    if begins is None or begins > last:
        return [], "the prediction log is empty: nothing was asked of the model server yet"
    found: list[DaySums] = []
    why = f"the prediction log begins on {begins}" if begins > first else ""
    day = max(first, begins)
    while day <= last:
        sums = day_of(champion, day, now, score)
        found = [*found, sums] if sums else []
        if sums is None:
            why = (
                f"{day} was answered by another version, and its texts are not in the log (BERT_LOG_TEXTS), so that "
                "they cannot be scored again: days count from the day after"
            )
        day += timedelta(days=1)
    return found, why


def first_day(model: str) -> date | None:
    """The first day that the log has; None if it has none."""
    files, place = lake.filesystem(lake.root()), lake.predictions(model)
    names = [
        path.rstrip("/").rsplit("/", 1)[-1] for path in (files.ls(place, detail=False) if files.exists(place) else [])
    ]
    return min((found for name in names if (found := _date(name))), default=None)


def some_rows(model: str, day: date, most: int) -> pa.Table:
    """Rows of a day with a text, any as likely as another, of some of its files; without their probabilities."""
    sample = _Sample(most)
    for rows in _some_files(lake.find(folder(model, day.isoformat())), most):
        sample.add(_with_text(rows))
    return sample.table


def _score_again(champion: Champion, day: date, score: Score) -> DaySums | None:
    files = lake.find(folder(champion.model, day.isoformat()))
    sums, sample, looked_at = _Adding(champion.labels), _Sample(MOST_RESCORED), 0
    for rows in _some_files(files, MOST_RESCORED):
        looked_at += len(rows)
        sample.add(_with_text(rows))
    texts = sample.table["text"].to_pylist()
    if looked_at and not texts:
        return None
    if texts:
        sums.add(np.asarray(score(texts), np.float64), [len(text) for text in texts])
    found = sums.of_day(day, champion.version, of=looked_at, seen=_seen(files), scored_again=True)
    logger.info("%s: %d texts were scored again by version %s", day, len(texts), champion.version)
    _keep(champion.model, found)
    return found


def _some_files(files: Iterable[str], most: int) -> Iterator[pa.Table]:
    """Answers of files in an order of chance that is always the same, until there are enough with a text."""
    rows = 0
    for _, table in _whole_files(sorted(files, key=lambda uri: hashlib.sha256(uri.encode()).digest()), []):
        for part in _asked(table):
            rows += len(part) - part["text"].null_count
            yield part.drop_columns(["probabilities"])
        if rows >= most:
            return


def _with_text(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.field("text").is_valid())


def _whole_files(files: Iterable[str], faults: list[str]) -> Iterator[tuple[str, pa.Table]]:
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


def _asked(table: pa.Table) -> Iterator[pa.Table]:
    """What the model server answered, in parts: no shadow's word, no batch, no weekly ETL."""
    source, role = pc.field("source"), pc.field("role")
    by_server = source.is_null() | (source == "server")
    mine = prediction_log.fitted(table, prediction_log.SCHEMA).filter(by_server & (role.is_null() | (role != "shadow")))
    for start in range(0, len(mine), ROWS_AT_ONCE):
        yield mine.slice(start, ROWS_AT_ONCE)


class _Sample:
    """Keeps the rows whose ids have the lowest hashes: any are as likely, and the same each time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: list[pa.Table] = []
        self._places: list[NDArray[np.uint64]] = []
        self._rows = 0
        self._schema = pa.schema([field for field in prediction_log.SCHEMA if field.name != "probabilities"])

    def add(self, rows: pa.Table) -> None:
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
        if not self._kept:
            return self._schema.empty_table()
        self._cut()
        return self._kept[0]


class _Adding:
    """A day's sums while it is read."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._places = {label: place for place, label in enumerate(self.labels)}
        self._parts: list[Days] = []
        self._predicted = np.zeros(len(self.labels), np.int64)
        self._confidence = np.zeros(BINS, np.int64)
        self._answered = 0

    def add_answers(self, rows: pa.Table) -> None:
        """Rows of the log. Raises KeyError with a label that is none of the champion's."""
        self._answered += len(rows)
        known = rows.filter(pc.field("probabilities").is_valid())
        if len(known):
            texts = known["text"]
            characters = None if texts.null_count else pc.utf8_length(texts).to_numpy()
            self.add(self._matrix(known["probabilities"]), characters)

    def add(self, answers: Floats, characters: Sequence[int] | NDArray[np.int64] | None) -> None:
        """(texts, labels) probabilities, and the texts' lengths if they are known."""
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
        """What is kept."""
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


def _keep(model: str, sums: DaySums) -> None:
    lake.write_bytes(lake.daily_sums(model, sums.version, sums.day.isoformat()), sums.model_dump_json().encode())


def _seen(files: Sequence[str]) -> str:
    names = "\n".join(uri.rsplit("/", 1)[-1] for uri in files)
    return f"{len(files)} files {hashlib.sha256(names.encode()).hexdigest()[:16]}"


def _date(name: str) -> date | None:
    try:
        return date.fromisoformat(name.removeprefix("date=")) if name.startswith("date=") else None
    except ValueError:
        return None
