"""Predictions for texts that came without a label: by the champion, in parts, kept in the bucket and the warehouse.

In the bucket they are rows of the same data set as the model server's answers, with its columns and its days.
"""
# Only imported inside tasks.

import hashlib
import io
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from include import lake, objects
from include.orchestration.warehouse import warehouse
from include.registry import models
from include.settings import settings
from include.settings.serving import ServingSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from include.serving.engine import Engine

logger = logging.getLogger(__name__)

TEXTS_AT_ONCE = 20_000
SOURCE = "weekly_etl"
"""In the data set's column ``source``, where the model server's answers have ``server``."""

PREDICTIONS = sa.Table(
    "weekly_predictions",
    sa.MetaData(),
    sa.Column("week", sa.Text, primary_key=True),
    sa.Column("text_hash", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("text", "source", "label")),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Asked:
    """The texts that a run scores: of which DAG, week and sources, and up to which moment."""

    dag_id: str
    week: str
    sources: tuple[str, ...]
    at: datetime  # up to when the run took what there was

    @property
    def name(self) -> str:
        """The name of the file with the answers."""
        return f"{self.dag_id}-{self.week}.parquet"


def predict(unlabelled_uri: str, asked: Asked) -> dict[str, Any] | None:
    """Scores texts that have no label, replacing what was predicted of their week; None without texts or model.

    Returns how many there are, by which version, where the answers lie, and how many texts have each label.
    """
    model_name = settings().model_name
    champion = models.by_alias(model_name, models.CHAMPION)
    if champion is None or not unlabelled_uri or not objects.exists(unlabelled_uri):
        return None
    _move_older(model_name)
    uri = lake.predictions(model_name, f"date={_day(asked.at)}/{asked.name}")
    with tempfile.TemporaryDirectory() as folder:
        came = objects.download_file(unlabelled_uri, Path(folder) / "came.parquet")
        answers = Path(folder) / "answers.parquet"
        counts = _answer(came, answers, champion, asked)
        if not counts:
            return None
        objects.upload_file(answers, uri)
    _delete_others(model_name, asked, uri)
    logger.info("%d texts without a label were scored by version %s", sum(counts.values()), champion.version)
    return {
        "texts": sum(counts.values()), "version": champion.version, "uri": uri, "labels": dict(counts.most_common())
    }  # fmt: skip


def _answer(came: Path, answers: Path, champion: models.ModelVersion, asked: Asked) -> Counter[str]:
    """Writes the answers to a file and to the warehouse; how many texts have each label."""
    import pyarrow.parquet as pq

    from include.serving.engine import Engine
    from include.serving.prediction_log import SCHEMA

    counts: Counter[str] = Counter()
    file = pq.ParquetFile(came)
    if not file.metadata.num_rows:
        return counts
    PREDICTIONS.create(warehouse(), checkfirst=True)
    with (
        objects.local(champion.uri) as folder,
        pq.ParquetWriter(answers, SCHEMA, compression="zstd") as writer,
        warehouse().begin() as connection,
    ):
        engine = Engine(champion.name, champion.version, folder)
        of_week = (PREDICTIONS.c.week == asked.week) & PREDICTIONS.c.source.in_(asked.sources)
        connection.execute(sa.delete(PREDICTIONS).where(of_week))
        for rows in _distinct(file):
            table = _scored(engine, rows, asked)
            labels, shares = table["label"].to_pylist(), table["probability"].to_pylist()
            connection.execute(
                # Another DAG's source may have brought the same text in the same week.
                insert(PREDICTIONS).on_conflict_do_nothing(),
                [
                    {**row, "week": asked.week, "label": label, "probability": share, "version": champion.version}
                    for row, label, share in zip(rows, labels, shares, strict=True)
                ],
            )
            counts.update(labels)
            writer.write_table(table)
    return counts


def _distinct(file: Any) -> Iterator[list[dict[str, str]]]:
    """The texts of a file, each once, some at a time."""
    seen: set[str] = set()
    for part in file.iter_batches(TEXTS_AT_ONCE, columns=["text_hash", "text", "source"]):
        rows = {row["text_hash"]: row for row in part.to_pylist() if row["text_hash"] not in seen}
        seen.update(rows)
        if rows:
            yield list(rows.values())


def _scored(engine: "Engine", rows: list[dict[str, str]], asked: Asked) -> "pa.Table":
    import pyarrow as pa

    tokens = engine.tokenize([row["text"] for row in rows])
    shares = engine.probabilities(tokens.rows)
    best, classes = shares.argmax(-1), len(engine.labels)
    answers = {
        "cut": tokens.cut,
        "label": [engine.labels[at] for at in best],
        "probability": shares[range(len(rows)), best],
        "probabilities": pa.MapArray.from_arrays(
            list(accumulate([classes] * len(rows), initial=0)), engine.labels * len(rows), shares.ravel()
        ),
    }
    return _table(asked, rows, engine.version, answers)


def _table(asked: Asked, rows: list[dict[str, str]], version: str, answers: dict[str, Any]) -> "pa.Table":
    """Answers with the columns of the model server's; an id is the same if the week is done again."""
    import pyarrow as pa

    from include.serving.prediction_log import SCHEMA, text_hash

    texts, none = ServingSettings().log_texts, [None] * len(rows)
    ids = [f"{asked.dag_id} {asked.week} {row['text_hash']}".encode() for row in rows]
    columns = dict.fromkeys(SCHEMA.names, none) | answers
    columns |= {
        "id": [f"{asked.at:%Y%m%d}-{hashlib.sha256(one).hexdigest()[:32]}" for one in ids],
        "at": [asked.at] * len(rows),
        "version": [version] * len(rows),
        "source": [SOURCE] * len(rows),
        "role": ["champion"] * len(rows),
        "text": [row["text"] for row in rows] if texts == "full" else none,
        "text_hash": [text_hash(row["text"]) for row in rows] if texts != "off" else none,
        "caller_id": [row["source"] for row in rows],
    }
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def _delete_others(model_name: str, asked: Asked, uri: str) -> None:
    """Deletes what an earlier run has predicted of the week, if that lies under another day."""
    for day in _days_of(asked.week):
        other = lake.predictions(model_name, f"date={day}/{asked.name}")
        if other != uri:
            objects.delete(other)


def _move_older(model_name: str) -> None:
    """Brings what older versions kept in ``week=`` folders into the data set, where no reader of it stumbles on it."""
    import pyarrow.parquet as pq

    files = objects.filesystem(lake.root())
    known = lake.predictions(model_name)
    folders = files.ls(known, detail=False) if files.exists(known) else []
    for folder in folders:
        week = folder.rstrip("/").rsplit("/", 1)[-1].removeprefix("week=")
        if not re.fullmatch(r"\d{4}-W\d\d", week):
            continue
        for uri in objects.find(files.unstrip_protocol(folder)):
            with objects.filesystem(uri).open(uri, "rb") as content:
                old = pq.ParquetFile(content).read()
            asked = Asked("weekly_etl", week, (), datetime.fromisoformat(f"{_days_of(week)[-2]}T00:00:00Z"))
            answers = {name: old[name] for name in ("label", "probability")}
            if len(old):
                table = _table(asked, old.to_pylist(), old["version"][0].as_py(), answers)
                sink = io.BytesIO()
                pq.write_table(table, sink, compression="zstd")
                objects.write_bytes(
                    lake.predictions(model_name, f"date={_day(asked.at)}/{asked.name}"), sink.getvalue()
                )
            objects.delete(uri)


def _days_of(week: str) -> list[str]:
    """An ISO week's days, and the next one, with whose beginning it ends."""
    monday = datetime.strptime(f"{week}-1", "%G-W%V-%u")
    return [f"{monday + timedelta(days=number):%Y-%m-%d}" for number in range(8)]


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"
