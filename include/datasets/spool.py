"""Reads one file and keeps its judged rows on the local disk, so that an intake never holds more than a few of them.

``python -m include.datasets.spool`` does it as a process of its own, which a file that is too much for it may kill.
"""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from include.datasets.checks import CHECKED, check_frame
from include.datasets.reading import UnreadableFileError, open_table

logger = logging.getLogger(__name__)

_REPEATING = ["label", "rule", "reason"]
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("text", pa.string()),
        *((name, pa.string()) for name in _REPEATING),
        ("extra", pa.string()),
        ("key", pa.uint64()),
    ]
)
assert set(_SCHEMA.names) == set(CHECKED)


class SpoolJob(BaseModel):
    """A file to read: ``path`` where it lies, ``key`` as it was uploaded, ``target`` the Parquet file to write."""

    model_config = ConfigDict(frozen=True)

    path: Path
    key: str
    target: Path
    text_column: str = ""
    label_column: str = ""
    max_characters: int

    @property
    def result(self) -> Path:
        """Where a process of its own leaves what it says."""
        return self.target.with_suffix(".json")


class Spooled(BaseModel):
    """What became of a file: its rows, or why it cannot be read; and what somebody should know about it."""

    rows: int = 0
    reason: str = ""
    warnings: list[str] = []


def spool(job: SpoolJob) -> Spooled:
    """Reads a file, judges each row by itself, and writes the rows to the job's target."""
    rows = 0
    try:
        with (
            open_table(job.path, job.key, job.text_column, job.label_column) as table,
            pq.ParquetWriter(job.target, _SCHEMA, compression="lz4", use_dictionary=_REPEATING) as writer,
        ):
            for frame in table.frames:
                checked = check_frame(frame, job.max_characters)
                rows += len(checked)
                writer.write_table(pa.Table.from_pandas(checked, _SCHEMA, preserve_index=False))
        if not rows:
            raise UnreadableFileError("the file has no rows")
        return Spooled(rows=rows, warnings=table.warnings)
    except UnreadableFileError as error:
        return Spooled(reason=str(error))
    except Exception as error:  # one odd file must not stop the others, whatever it does to a parser
        logger.exception("%s cannot be read", job.key)
        return Spooled(reason=f"{type(error).__name__}: {error}")


def spool_alone(job: SpoolJob) -> Spooled:
    """``spool`` in a process of its own. A file that kills it cannot be read; the reason says so."""
    command = [sys.executable, "-m", "include.datasets.spool", job.model_dump_json()]
    exit_code = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
    if exit_code == 0:
        return Spooled.model_validate_json(job.result.read_text())
    how = f"was killed (signal {-exit_code})" if exit_code < 0 else f"ended with exit code {exit_code}"
    return Spooled(
        reason=f"the process that read it, and nothing else, {how}, most likely for want of memory; split the file"
    )


def judged_columns(job: SpoolJob) -> pd.DataFrame:
    """Of a spooled file what all rows are judged by together: row, key, label, rule, reason; no texts."""
    columns = ["row", "key", *_REPEATING]
    table = pq.read_table(job.target, columns=columns, read_dictionary=_REPEATING)
    frame: pd.DataFrame = table.to_pandas()
    for name in _REPEATING:
        frame[name] = frame[name].astype(object)
    return frame


def spooled_rows(job: SpoolJob) -> Iterator[pa.RecordBatch]:
    """A spooled file's rows, in order, with the columns row, text and extra."""
    yield from pq.ParquetFile(job.target).iter_batches(columns=["row", "text", "extra"])


def main() -> None:
    """Reads the job from the command line, and leaves what came of it beside its target."""
    job = SpoolJob.model_validate_json(sys.argv[1])
    job.result.write_text(spool(job).model_dump_json())


if __name__ == "__main__":
    main()
