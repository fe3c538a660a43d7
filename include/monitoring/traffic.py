"""A champion's traffic day by day, out of the prediction log: sums that are made once and kept, and some of the texts.

A day is what the model server was asked on it (UTC). If the champion of today answered at least half of that, its own
answers are the day. Otherwise some of the day's texts are scored again with it, any text as likely as another: so a new
champion has a past to be compared with. Days on which nothing was asked are days, too. What a batch or the weekly ETL
has scored is no traffic.
"""
# ruff: noqa: TID253 - sums over arrays are what this module is about

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy.engine import Engine

from include import lake, objects
from include.monitoring.answers import Adding, DaySums, Sampling, asked, some_files, whole_files, with_text
from include.registry import ledger, models
from include.serving import prediction_log
from include.serving.prediction_log import folder

logger = logging.getLogger(__name__)

MOST_SAMPLED = 10_000  # of a day's rows, for the checks of texts
MOST_RESCORED = 2_000  # of a day's texts: the drift test counts that they are a sample
LATE_DAYS = 3  # a server that had no bucket, or a batch of the night, writes into a day that was read already

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
                loaded.append(Scorer(str(held.enter_context(objects.local(champion.uri)))))
            mine = loaded[0]
            assert isinstance(mine, Scorer)
            return mine.probabilities(mine.tokenize(texts))

        yield score


def look(model: str, day: date, champion: Champion | None) -> Look:
    """Reads a day of the log, file by file, and keeps the champion's sums if it answered most of the day."""
    files = objects.find(folder(model, day.isoformat()))
    sums = Adding(champion.labels if champion else ())
    sample, faults, news, of = Sampling(MOST_SAMPLED), list[str](), dict[str, None](), 0
    for uri, table in whole_files(files, faults):
        news |= dict.fromkeys(name for name in table.column_names if name not in prediction_log.SCHEMA.names)
        for part in asked(table):
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
    kept = _kept(champion, day)
    if kept and now.date() - day > timedelta(days=LATE_DAYS):
        return kept
    if kept and kept.seen == _seen(objects.find(folder(champion.model, day.isoformat()))):
        return kept
    if day >= champion.since.astimezone(UTC).date():
        found = look(champion.model, day, champion).sums
        if 2 * found.answered >= found.of:
            return found
    return _score_again(champion, day, score)


def days_until(champion: Champion, first: date, last: date, now: datetime, score: Score) -> tuple[list[DaySums], str]:
    """A champion's days from one to another without a gap, and why there are fewer, if there are.

    The days begin with the first on which something was asked, or after the last day that is not known.
    """
    begins = first_day(champion.model)
    if begins is None or begins > last:
        return [], "the prediction log is empty: nothing was asked of the model server yet"
    found: list[DaySums] = []
    why = f"the prediction log begins on {begins}" if begins > first else ""
    day = max(first, begins)
    while day <= last:
        sums = day_of(champion, day, now, score)
        found = [*found, sums] if sums and (found or sums.of) else []
        if sums is None:
            why = (
                f"{day} was answered by another version, and its texts are not in the log (BERT_LOG_TEXTS), so that "
                "they cannot be scored again: days count from the day after"
            )
        day += timedelta(days=1)
    return found, why


def first_day(model: str) -> date | None:
    """The first day that the log has; None if it has none."""
    files, place = objects.filesystem(lake.root()), lake.predictions(model)
    names = [
        path.rstrip("/").rsplit("/", 1)[-1] for path in (files.ls(place, detail=False) if files.exists(place) else [])
    ]
    return min((found for name in names if (found := _date(name))), default=None)


def some_rows(model: str, day: date, most: int) -> pa.Table:
    """Rows of a day with a text, any as likely as another, of some of its files; without their probabilities."""
    sample = Sampling(most)
    for rows in some_files(objects.find(folder(model, day.isoformat())), most):
        sample.add(with_text(rows))
    return sample.table


def _score_again(champion: Champion, day: date, score: Score) -> DaySums | None:
    files = objects.find(folder(champion.model, day.isoformat()))
    sums, sample, looked_at = Adding(champion.labels), Sampling(MOST_RESCORED), 0
    for rows in some_files(files, MOST_RESCORED):
        looked_at += len(rows)
        sample.add(with_text(rows))
    texts = sample.table["text"].to_pylist()
    if looked_at and not texts:
        return None
    if texts:
        sums.add(np.asarray(score(texts), np.float64), [len(text) for text in texts])
    found = sums.of_day(day, champion.version, of=looked_at, seen=_seen(files), scored_again=True)
    logger.info("%s: %d texts were scored again by version %s", day, len(texts), champion.version)
    _keep(champion.model, found)
    return found


def sums_uri(model: str, version: str, day: date) -> str:
    """Where a version's sums of a day are kept."""
    return lake.monitoring(model, f"days/{version}/{day}.json")


def _kept(champion: Champion, day: date) -> DaySums | None:
    uri = sums_uri(champion.model, champion.version, day)
    try:
        return DaySums.model_validate(objects.read_json(uri))
    except FileNotFoundError:
        return None


def _keep(model: str, sums: DaySums) -> None:
    objects.write_bytes(sums_uri(model, sums.version, sums.day), sums.model_dump_json().encode())


def _seen(files: Sequence[str]) -> str:
    names = "\n".join(uri.rsplit("/", 1)[-1] for uri in files)
    return f"{len(files)} files {hashlib.sha256(names.encode()).hexdigest()[:16]}"


def _date(name: str) -> date | None:
    try:
        return date.fromisoformat(name.removeprefix("date=")) if name.startswith("date=") else None
    except ValueError:
        return None
