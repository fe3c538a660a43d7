"""What the server said, as Parquet in ``predictions/<model>/date=…/``: written once a second, beside the answering."""
# ruff: noqa: TID253 - Parquet is what this module is about

import hashlib
import io
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby, islice
from typing import Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from include import lake, objects

logger = logging.getLogger(__name__)

LogTexts = Literal["full", "hash", "off"]
Role = Literal["champion", "canary", "shadow"]
Source = Literal["server", "batch", "weekly_etl"]
READERS = 16  # files that are read at a time: a server writes one a second
MOST_ROWS = 200_000  # that are kept while the bucket does not answer; the oldest go first

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("version", pa.string()),
        ("source", pa.string()),  # server, batch or weekly_etl; empty in files from before there were several: server
        ("role", pa.string()),  # champion, canary, weekly_etl; or shadow, whose word is no answer
        ("text", pa.string()),
        ("text_hash", pa.string()),
        ("cut", pa.bool_()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("probabilities", pa.map_(pa.string(), pa.float32())),
        ("latency_ms", pa.float32()),
        ("caller_id", pa.string()),
    ]
)
"""Of every file; its folder names the model and the day (UTC)."""


@dataclass(frozen=True, eq=False)
class Said:
    """One request's answers, or those to a part of a file; all sequences have one entry per text."""

    model: str
    version: str
    at: datetime
    ids: list[str]
    texts: list[str]
    cut: list[bool]
    labels: list[str]  # of the columns
    probabilities: NDArray[np.float32]  # (texts, labels)
    latency_ms: float | None  # from request to answer; None where nobody waited
    caller_ids: list[str | None]
    role: Role = "champion"
    source: Source = "server"

    @cached_property
    def predicted(self) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[index] for index in self.probabilities.argmax(-1).tolist()]

    @cached_property
    def certainty(self) -> list[float]:
        """The probability of each text's most probable label."""
        found: list[float] = self.probabilities.max(-1).tolist()
        return found


def new_id(at: datetime) -> str:
    """A prediction's id; its day says in which folder the prediction lies."""
    return f"{at:%Y%m%d}-{uuid4().hex}"


def folder(model: str, day: str) -> str:
    """Where a day's files lie; a day is YYYY-MM-DD."""
    return lake.predictions(model, f"date={day}/")


def text_hash(text: str) -> str:
    """A hash by which a text is known where the text itself is not kept."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class PredictionLog:
    """Keeps answers until they are written. Adding never waits and never fails.

    Args:
        texts: whether rows have the text, its hash alone, or neither.
        seconds: between two writes; what a server loses at most that is killed.
    """

    def __init__(self, texts: LogTexts, seconds: float = 1.0) -> None:
        self.lost_rows = 0
        self._texts, self._seconds = texts, seconds
        self._waiting: deque[Said] = deque()
        self._rows = 0
        self._changing = threading.Lock()
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, said: Said) -> None:
        """Queues a request's answers to be written; the oldest are lost where too many wait."""
        with self._changing:
            self._waiting.append(said)
            self._rows += len(said.ids)
            while self._rows > MOST_ROWS:
                gone = self._waiting.popleft()
                self._rows -= len(gone.ids)
                self.lost_rows += len(gone.ids)

    @property
    def waiting_rows(self) -> int:
        """Rows that are not written yet."""
        return self._rows

    def close(self) -> None:
        """Writes what is left."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._seconds
        while not self._ending.wait(pause):
            begun = time.monotonic()
            self._write()
            pause = max(self._seconds - (time.monotonic() - begun), 0.0)
        self._write()

    def _write(self) -> None:
        with self._writing:
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._changing:
            taken, rows = list(self._waiting), self._rows
            self._waiting.clear()
            self._rows = 0
        if not taken:
            return
        try:
            written = 0
            for (model, day), group in groupby(sorted(taken, key=_place), key=_place):
                found = list(group)
                uri = f"{folder(model, day)}{int(time.time() * 1000)}-{uuid4().hex[:8]}.parquet"
                sink = io.BytesIO()
                parquet.write_table(as_table(found, self._texts), sink, compression="zstd")
                objects.write_bytes(uri, sink.getvalue())
                written += len(found)
                for one in found:
                    taken.remove(one)
                    rows -= len(one.ids)
        except Exception as error:
            logger.warning("%d predictions wait to be logged: %s", rows, error)
            with self._changing:
                self._waiting.extendleft(reversed(taken))
                self._rows += rows


def as_table(said: Iterable[Said], texts: LogTexts) -> pa.Table:
    """Answers as rows of the log, with their texts, the texts' hashes alone, or neither."""
    full, hashed = texts == "full", texts in ("full", "hash")
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for one in said:
        for row, text in enumerate(one.texts):
            columns["id"].append(one.ids[row])
            columns["at"].append(one.at)
            columns["version"].append(one.version)
            columns["source"].append(one.source)
            columns["role"].append(one.role)
            columns["text"].append(text if full else None)
            columns["text_hash"].append(text_hash(text) if hashed else None)
            columns["cut"].append(one.cut[row])
            columns["label"].append(one.predicted[row])
            columns["probability"].append(one.certainty[row])
            columns["probabilities"].append(list(zip(one.labels, one.probabilities[row].tolist(), strict=True)))
            columns["latency_ms"].append(one.latency_ms)
            columns["caller_id"].append(one.caller_ids[row])
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def read(model: str, days: Iterable[str]) -> Iterator[pa.Table]:
    """The log of some days (YYYY-MM-DD), a table for each file, without the probabilities."""
    yield from read_files(uri for day in days for uri in objects.find(folder(model, day)))


def read_files(uris: Iterable[str]) -> Iterator[pa.Table]:
    """Files of the log, likewise; what an older one has no column for is empty. An empty table comes first."""
    names = [name for name in SCHEMA.names if name != "probabilities"]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    yield schema.empty_table()
    for _, table in raw_files(uris):
        yield fitted(table, schema)


def raw_files(uris: Iterable[str], faults: list[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Files as they are, in their order, with their URIs; few are in memory at a time, however many there are.

    Those that are no Parquet are left out and told in ``faults``; without a list for that they raise what pyarrow does.
    """

    def one(uri: str) -> tuple[str, pa.Table | None]:
        content = io.BytesIO(objects.read_bytes(uri))
        try:
            return uri, parquet.read_table(content)
        except (pa.ArrowException, OSError) as error:
            if faults is None:
                raise
            faults.append(f"{uri} cannot be read: {error}")
            return uri, None

    coming = iter(uris)
    with ThreadPoolExecutor(READERS) as readers:
        ahead = deque(readers.submit(one, uri) for uri in islice(coming, 2 * READERS))
        while ahead:
            uri, table = ahead.popleft().result()
            ahead.extend(readers.submit(one, uri) for uri in islice(coming, 1))
            if table is not None:
                yield uri, table


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with these columns and types; one that it has not is empty. Raises ArrowInvalid if a type is another."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _place(said: Said) -> tuple[str, str]:
    return said.model, f"{said.at.astimezone(UTC):%Y-%m-%d}"
