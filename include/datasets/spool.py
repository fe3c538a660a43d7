"""Reads one file and keeps its judged rows on the local disk, so that an intake never holds more than a few of them.

``python -m include.datasets.spool`` does it as a process of its own, which a file that is too much for it may kill.
"""
# ruff: noqa: TID253 - only imported inside tasks; pyarrow is what it is about

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from joblib import cpu_count
from pydantic import BaseModel, ConfigDict

from include.datasets.ahead import ahead
from include.datasets.checks import CHECKED, check_frame, content
from include.datasets.judging import Rows
from include.datasets.reading import WHOLE, DamagedPartError, Part, UnreadableFileError, open_table

logger = logging.getLogger(__name__)

PROJECT = Path(__file__).parents[2]
LARGE_BYTES = 100 << 20  # starting the processes takes as long as reading so much


class SpoolJob(BaseModel):
    """A file to read: ``path`` where it lies, ``key`` as it was uploaded, ``target`` the Arrow file to write."""

    model_config = ConfigDict(frozen=True)

    path: Path
    key: str
    target: Path
    text_column: str = ""
    label_column: str = ""
    labelled: bool = True  # else the label column is the text's, and says nothing
    max_characters: int
    part: Part = WHOLE

    @property
    def result(self) -> Path:
        """Where a process of its own leaves what it says."""
        return self.target.with_suffix(".json")

    def parts(self, count: int) -> list["SpoolJob"]:
        """Jobs that read the same file together."""
        return [
            self.model_copy(update={"part": (at, count), "target": self.target.with_suffix(f".{at}.arrow")})
            for at in range(count)
        ]


class Spooled(BaseModel):
    """What became of a file: its rows, or why it cannot be read; and what somebody should know about it.

    ``targets`` are the Arrow files with its rows, one after the other.
    """

    rows: int = 0
    reason: str = ""
    warnings: list[str] = []
    targets: list[Path] = []
    damaged_part: bool = False


def spool(job: SpoolJob) -> Spooled:
    """Reads a file, judges each row by itself, and writes the rows to the job's target.

    A large file is read by one process a core, if it is CSV that can be cut into parts.
    """
    if job.part == WHOLE and job.path.stat().st_size >= LARGE_BYTES and (cores := cpu_count()) > 1:
        together = _spool_parts(job.parts(cores))
        if together is not None:
            return together
    rows = 0
    try:
        with (
            open_table(job.path, job.key, job.text_column, job.label_column, job.part) as table,
            pa.ipc.new_file(str(job.target), CHECKED) as writer,
        ):
            for frame in ahead(table.frames):
                checked = check_frame(frame if job.labelled else frame.assign(label="none"), job.max_characters)
                rows += len(checked)
                writer.write_table(checked)
        if not rows and job.part == WHOLE:
            raise UnreadableFileError("the file has no rows")
        return Spooled(rows=rows, warnings=table.warnings, targets=[job.target])
    except DamagedPartError as error:
        return Spooled(reason=str(error), damaged_part=True)
    except UnreadableFileError as error:
        return Spooled(reason=str(error))
    except Exception as error:  # one odd file must not stop the others, whatever it does to a parser
        logger.exception("%s cannot be read", job.key)
        return Spooled(reason=f"{type(error).__name__}: {error}")


def _spool_parts(jobs: list[SpoolJob]) -> Spooled | None:
    """All parts of a file, each read in a process of its own; None if it has to be read at once."""
    processes = [subprocess.Popen(_command(job), cwd=PROJECT) for job in jobs]
    exit_codes = [process.wait() for process in processes]
    if any(exit_codes):
        return None
    results = [Spooled.model_validate_json(job.result.read_text()) for job in jobs]
    if any(result.reason for result in results):
        return None
    return Spooled(
        rows=sum(result.rows for result in results),
        warnings=results[0].warnings,
        targets=[job.target for job in jobs],
    )


def spool_alone(job: SpoolJob) -> Spooled:
    """``spool`` in a process of its own. A file that kills it cannot be read; the reason says so."""
    exit_code = subprocess.run(_command(job), cwd=PROJECT, check=False).returncode
    if exit_code == 0:
        return Spooled.model_validate_json(job.result.read_text())
    how = f"was killed (signal {-exit_code})" if exit_code < 0 else f"ended with exit code {exit_code}"
    return Spooled(
        reason=f"the process that read it, and nothing else, {how}, most likely for want of memory; split the file"
    )


def _command(job: SpoolJob) -> list[str]:
    return [sys.executable, "-m", "include.datasets.spool", job.model_dump_json()]


def judged_rows(keys: Sequence[str], files: Mapping[int, Spooled]) -> Rows:
    """What all rows of spooled files are judged by together; ``files`` by their number in ``keys``."""
    parts: dict[str, list[Any]] = {"file": [], "number": [], "key": [], "label": []}
    codes: dict[str, int] = {}
    broken: dict[int, tuple[str, str]] = {}
    size = 0
    for number, file in files.items():
        for batch in _batches(file, ["row", "label", "rule", "reason", "key"]):
            encoded = batch["label"].dictionary_encode()
            here = np.array([codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()], np.int32)
            parts["file"].append(np.full(batch.num_rows, number, np.int32))
            parts["number"].append(batch["row"].to_numpy().astype(np.int32))
            parts["key"].append(batch["key"].to_numpy())
            parts["label"].append(here[encoded.indices.to_numpy()])
            if content(batch["rule"]):
                verdicts = zip(batch["rule"].to_pylist(), batch["reason"].to_pylist(), strict=True)
                broken.update((size + at, verdict) for at, verdict in enumerate(verdicts) if verdict[0])
            size += batch.num_rows
    joined = {name: np.concatenate(some) if some else np.array([], np.int32) for name, some in parts.items()}
    return Rows(files=keys, **joined, names=list(codes), broken=broken)


def spooled_rows(file: Spooled) -> Iterator[pa.RecordBatch]:
    """A spooled file's rows, in order, with the columns row, text and extra."""
    yield from _batches(file, ["row", "text", "extra"])


def judged_batches(file: Spooled) -> Iterator[pa.RecordBatch]:
    """A spooled file's rows with all that is known of them: ``checks.CHECKED``."""
    yield from _batches(file, CHECKED.names)


def _batches(file: Spooled, names: list[str]) -> Iterator[pa.RecordBatch]:
    """``names`` begin with row, which counts on from part to part."""
    fields = [CHECKED.get_field_index(name) for name in names]
    before = 0
    for target in file.targets:
        rows = 0
        with pa.OSFile(str(target)) as source:  # a mapped file would count as memory
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
            for at in range(reader.num_record_batches):
                batch = reader.get_batch(at)
                rows += batch.num_rows
                yield batch if not before else batch.set_column(0, "row", pc.add(batch["row"], before))
        before += rows


def main() -> None:
    """Reads the job from the command line, and leaves what came of it beside its target."""
    job = SpoolJob.model_validate_json(sys.argv[1])
    job.result.write_text(spool(job).model_dump_json())


if __name__ == "__main__":
    main()
