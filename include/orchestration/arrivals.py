"""What came on a day, for the daily validation: rows of uploads, of the curated table and of the prediction log."""
# Only imported inside tasks.
# ruff: noqa: TID253 - frames are what this module is about

import io
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from pyarrow import parquet
from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets.intake import FileAccount, Intake
from include.monitoring import profiles, traffic
from include.monitoring.checks import Check, at_most, not_checked
from include.monitoring.profiles import Profiles, Sample
from include.monitoring.traffic import Champion
from include.orchestration import curating
from include.orchestration.batches import BATCHES
from include.orchestration.outcome import NO_LOSS

logger = logging.getLogger(__name__)

MOST_ROWS = 10_000  # of a source that are looked at
ROWS_AT_ONCE = 50_000
SHOWN_FAULTS = 5
OF_TEXT = ("text", "label")
OF_PREDICTIONS = ("text", "label", "probability", "cut", "latency_ms", "text_hash")
ETL = "weekly_etl"  # and the DAGs of sources with a schedule of their own, whose names begin so


@dataclass(frozen=True)
class Arrived:
    """What is handed from task to task: where the samples lie, and what the schemas are like."""

    samples: list[Sample]
    profiles: Profiles
    schema: list[Check]


def gather(model: str, day: date, champion: Champion | None, engine: Engine, run_id: str) -> Arrived:
    """Looks at what came on a day, keeps its profiles, and stages the rows for the run's other tasks."""
    uploads, upload_schema = _uploads(day, engine)
    examples, example_schema = _examples(day, engine)
    seen = traffic.look(model, day, champion)
    predictions = Sample("predictions", seen.sums.of, seen.sample.select(list(OF_PREDICTIONS)).to_pandas())
    samples = [uploads, examples, predictions]
    uri = champion.uri if champion else ""
    with profiles.tokenizer_at(uri) as tokenizer:
        found = {one.source: profiles.profile(one, tokenizer) for one in samples}
    profiles.keep(model, day, found)
    for one in samples:
        sink = io.BytesIO()
        one.frame.to_parquet(sink, index=False)
        objects.write_bytes(_staged(run_id, one.source), sink.getvalue())
    new = f"; columns that are new to the log: {', '.join(seen.news)}" if seen.news else ""
    schema = [
        upload_schema,
        example_schema,
        _told("schema.predictions", list(seen.faults), f"all files are as they should be{new}"),
    ]
    return Arrived(samples, found, schema)


def staged(model: str, day: date, run_id: str) -> tuple[list[Sample], Profiles]:
    """What an earlier task of the run has gathered."""
    found = profiles.kept(model, day)
    samples = [
        Sample(
            source,
            found[source].rows,
            pd.read_parquet(io.BytesIO(objects.read_bytes(_staged(run_id, source)))),
            found[source].counts,
        )
        for source in profiles.SOURCES
    ]
    return samples, found


def _staged(run_id: str, source: str) -> str:
    return lake.staging(run_id, f"arrived/{source}.parquet")


def _told(name: str, faults: list[str], otherwise: str) -> Check:
    more = f" and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
    return at_most(name, len(faults), 0, f"{'; '.join(faults[:SHOWN_FAULTS])}{more}" if faults else otherwise)


def _uploads(day: date, engine: Engine) -> tuple[Sample, Check]:
    """The rows of the runs that took what was claimed on a day, and what became of the others."""
    name = "schema.uploads"
    first = datetime.combine(day, time.min, UTC)
    batches: list[Any] = []
    if sa.inspect(engine).has_table(BATCHES.name):
        wanted = sa.select(BATCHES.c.batch_id, BATCHES.c.run_id).where(
            (BATCHES.c.claimed_at >= first) & (BATCHES.c.claimed_at < first + timedelta(days=1))
        )
        with engine.connect() as connection:
            batches = connection.execute(wanted).fetchall()
    mine, runs = {one.batch_id for one in batches}, sorted({one.run_id for one in batches if one.run_id})
    counts: Counter[str] = Counter()
    frames, faults, rows = [], [], 0
    for run_id in runs:
        uri = lake.staging(run_id, "intake.json")
        if not objects.exists(uri):
            continue
        intake = Intake.model_validate(objects.read_json(uri))
        for file in intake.files:
            if file.batch_id in mine:
                counts.update(
                    files=1, rows_in=file.rows_in, rejected=_lost(file), unreadable=bool(file.reason),
                    duplicates=file.by_rule.get("duplicate", 0), used=file.used + file.waiting,
                )  # fmt: skip
        if intake.accepted_uri and objects.exists(intake.accepted_uri):
            size, frame, wrong = _some_accepted(intake.accepted_uri)
            faults += [f"{intake.accepted_uri}: {fault}" for fault in wrong]
            frames.append(frame)
            rows += size
    frame = pd.concat(frames, ignore_index=True) if frames else _nothing(OF_TEXT)
    some = frame.sample(min(len(frame), MOST_ROWS), random_state=0)
    sample = Sample("uploads", rows, some, dict(counts))
    schema = _told(name, faults, "text and label are texts") if frames else not_checked(name, "nothing was uploaded")
    return sample, schema


def _examples(day: date, engine: Engine) -> tuple[Sample, Check]:
    """The curated texts of the weeks that were merged on a day; the table's columns, whenever that was."""
    name, nothing = "schema.training_examples", Sample("training_examples", 0, _nothing(OF_TEXT))
    inspector = sa.inspect(engine)
    if not inspector.has_table(curating.EXAMPLES.name):
        return nothing, not_checked(name, "weekly_etl has not made the table yet")
    there = {column["name"]: column["type"] for column in inspector.get_columns(curating.EXAMPLES.name)}
    faults = [
        f"it has no column {column.name}" if column.name not in there
        else f"{column.name} is {there[column.name]} and not {column.type}"
        for column in curating.EXAMPLES.columns
        if column.name not in there or _kind(there[column.name]) != _kind(column.type)
    ]  # fmt: skip
    new = [name for name in there if name not in curating.EXAMPLES.columns]
    told = f"its columns are as they should be{f'; there are others, too: {chr(44).join(new)}' if new else ''}"
    weeks = [] if faults else _weeks_of(day)
    if not weeks or not inspector.has_table(curating.SIGHTINGS.name):
        return nothing, _told(name, faults, told)
    seen = sa.select(curating.SIGHTINGS.c.text_hash).where(curating.SIGHTINGS.c.week.in_(weeks))
    mine = curating.EXAMPLES.c.text_hash.in_(seen)
    columns = (curating.EXAMPLES.c.text, curating.EXAMPLES.c.label)
    with engine.connect() as connection:
        rows = int(
            connection.execute(sa.select(sa.func.count()).select_from(curating.EXAMPLES).where(mine)).scalar_one()
        )
        some = connection.execute(
            sa.select(*columns).where(mine).order_by(curating.EXAMPLES.c.text_hash).limit(MOST_ROWS)
        )
        frame = pd.DataFrame(some.fetchall(), columns=list(OF_TEXT), dtype=object)
    return Sample("training_examples", rows, frame), _told(name, faults, told)


def _weeks_of(day: date) -> list[str]:
    """The weeks whose report was written on a day: then their rows were merged."""
    files, reports = objects.filesystem(lake.root()), f"{lake.root()}/reports/"
    names = [
        path.rstrip("/").rsplit("/", 1)[-1]
        for path in (files.ls(reports, detail=False) if files.exists(reports) else [])
    ]
    return [
        one.uri.rsplit("/", 1)[-1].removesuffix(".json")
        for dag_id in names
        if dag_id.startswith(ETL)
        for one in objects.listing(lake.week_facts(dag_id))
        if one.modified.astimezone(UTC).date() == day
    ]


def _lost(file: FileAccount) -> int:
    """Rows that were rejected and were not there already."""
    return file.rejected - sum(file.by_rule.get(rule, 0) for rule in NO_LOSS)


def _some_accepted(uri: str) -> tuple[int, pd.DataFrame, list[str]]:
    """How many rows were accepted, some of them, and what is wrong with their columns; a file may have millions."""
    with (
        tempfile.TemporaryDirectory() as folder,
        parquet.ParquetFile(objects.download_file(uri, Path(folder) / "accepted.parquet")) as file,
    ):
        rows, schema = file.metadata.num_rows, file.schema_arrow
        if missing := [name for name in OF_TEXT if name not in schema.names]:
            return rows, _nothing(OF_TEXT), [f"it has no column {', '.join(missing)}"]
        wrong = [f"{name} is {schema.field(name).type} and no text" for name in OF_TEXT if not _is_text(schema, name)]
        chosen = np.sort(np.random.default_rng(0).choice(rows, min(rows, MOST_ROWS), replace=False))
        parts, start = [], 0
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(OF_TEXT)):
            mine = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
            parts.append(pa.Table.from_batches([batch]).take(mine))
            start += len(batch)
        frame = pa.concat_tables(parts).to_pandas() if parts else _nothing(OF_TEXT)
        return rows, frame.reindex(columns=list(OF_TEXT)), wrong


def _is_text(schema: pa.Schema, name: str) -> bool:
    of = schema.field(name).type
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_null(of))


def _kind(of: Any) -> str:
    return "text" if isinstance(of, sa.String) else "number" if isinstance(of, sa.Integer) else str(of)


def _nothing(columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
