"""Takes files in for one run: every row of every file ends as accepted, rejected with a reason, or waiting."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import hashlib
import io
import logging
from collections.abc import Iterable
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from include import lake
from include.datasets import golden, snapshots
from include.datasets.checks import check_rows, normalise
from include.datasets.reading import UnreadableFileError, read_rows
from include.settings import settings

logger = logging.getLogger(__name__)

REJECTED_COLUMNS = ["file", "row", "text", "label", "rule", "reason"]


class Source(BaseModel):
    """A file to take in: ``key`` as the user named it, ``uri`` where it lies, ``batch_id`` whose quarantine is its."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    key: str
    uri: str


class Plan(BaseModel):
    """What a run works on, pinned when it first starts: a run that is repeated later must not see later data."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    model_name: str
    sources: list[Source]
    parent_dataset_id: str | None
    golden_sha256: str | None

    def pin(self) -> "Plan":
        """Writes the plan unless this run has one already; returns the one that counts."""
        uri = lake.staging(self.run_id, "plan.json")
        lake.create_bytes(uri, self.model_dump_json(indent=2).encode())
        return Plan.model_validate_json(lake.read_bytes(uri))


class FileAccount(BaseModel):
    """What became of one file's rows. A file that cannot be read counts as one row, rejected."""

    key: str
    batch_id: str
    rows_in: int
    used: int
    rejected: int
    waiting: int = 0
    by_rule: dict[str, int] = {}
    quarantine: str | None = None
    reason: str = ""  # why the file as a whole cannot be read
    warnings: list[str] = []  # what somebody should look at, though the rows are used


class Intake(BaseModel):
    """What a run took in; ``accepted_uri`` is a Parquet file with the columns text and label."""

    files: list[FileAccount]
    accepted_uri: str
    accepted_rows: int
    missing: str = ""  # why the rows have to wait for more; empty: there is enough
    warnings: list[str] = []  # about all files' rows together

    @property
    def rows(self) -> dict[str, int]:
        """All files' rows together: in, used, rejected, waiting."""
        return {
            "in": sum(file.rows_in for file in self.files),
            "used": sum(file.used for file in self.files),
            "rejected": sum(file.rejected for file in self.files),
            "waiting": sum(file.waiting for file in self.files),
        }


def sources_at(uri: str) -> list[Source]:
    """The files at a URI: one object, a folder, or a pattern with ``*``. Raises FileNotFoundError if there are none."""
    files = lake.filesystem(uri)
    if files.isfile(uri):
        paths = [uri]
    elif any(character in uri for character in "*?["):
        paths = [path for path, info in files.glob(uri, detail=True).items() if info["type"] == "file"]
    else:
        paths = files.find(uri)
    # _SUCCESS, .part.crc: what programs leave in folders beside their data.
    uris = sorted(files.unstrip_protocol(path) for path in paths if not path.rsplit("/", 1)[-1].startswith(("_", ".")))
    if not uris:
        raise FileNotFoundError(f"no file at {uri}: give a file, a folder that ends in /, or a pattern with *")
    batch_id = f"uri-{hashlib.sha256(chr(10).join(uris).encode()).hexdigest()[:16]}"
    return [Source(batch_id=batch_id, key=path.split("://", 1)[1].split("/", 1)[1], uri=path) for path in uris]


def stage(sources: list[Source], run_id: str) -> list[Source]:
    """Copies files that no batch owns to a run's staging, where nobody overwrites them while the run works."""
    staged = []
    for at, source in enumerate(sources):
        target = lake.staging(run_id, f"sources/{at}/{lake.plain(source.uri.rsplit('/', 1)[-1])}")
        lake.filesystem(source.uri).cp_file(source.uri, target)
        staged.append(source.model_copy(update={"uri": target}))
    return staged


def take_in(plan: Plan) -> Intake:
    """Reads and judges all of a plan's files; writes accepted rows to staging and rejected ones to quarantine.

    A plan without files is to train on the champion's rows again: they are what is accepted then. As long as the rows
    have to wait for more, all of them wait, also those that would be rejected: with more rows, a label is not rare.
    """
    frozen = golden.read(plan.model_name) if plan.golden_sha256 else None
    parent = snapshots.read(plan.parent_dataset_id) if plan.parent_dataset_id else None
    frames, unreadable = _read_all(plan.sources)
    rows = _judge(frames, frozen, parent)
    accepted = rows.loc[rows["rule"] == "", ["text", "label"]]
    if not plan.sources and parent is not None:
        accepted = parent[["text", "label"]]
    missing = "" if frozen is not None else _missing(accepted)
    accepted_uri = lake.staging(plan.run_id, "accepted.parquet")
    lake.write_bytes(accepted_uri, _parquet(accepted))
    quarantines = {} if missing else _quarantine_rows(rows[rows["rule"] != ""])
    files = [
        unreadable.get(source.uri) or _account(source, rows, quarantines, waiting=bool(missing))
        for source in plan.sources
    ]
    for file in files:
        logger.info(
            "%s: %d rows, %d accepted, %d rejected %s",
            file.key, file.rows_in, file.used + file.waiting, file.rejected, file.by_rule or "",
        )  # fmt: skip
    return Intake(files=files, accepted_uri=accepted_uri, accepted_rows=len(accepted), missing=missing)


def build_dataset(plan: Plan, accepted: pd.DataFrame) -> dict[str, Any]:
    """Accepted rows and the champion's become a snapshot; the first time, the golden set is frozen from them.

    Returns the snapshot's manifest. Raises GoldenSetError if golden texts got into the snapshot.
    """
    frozen = golden.read(plan.model_name)
    if frozen is None:
        config = settings()
        share = snapshots.stratified_share(accepted, config.golden_fraction, "golden", at_most=config.golden_max_rows)
        frozen = golden.freeze(plan.model_name, accepted[share])
        logger.info("froze the golden set: %d rows, %d labels", len(frozen.rows), len(frozen.labels))
    new = accepted[~accepted["text"].map(normalise).isin(frozen.normalised)]
    parent = snapshots.read(plan.parent_dataset_id) if plan.parent_dataset_id else None
    rows, relabelled = snapshots.combine(parent, new)
    facts = {
        "parent_dataset_id": plan.parent_dataset_id,
        "new_rows": len(new),
        "relabelled_rows": relabelled,
        "sources": sorted({source.key for source in plan.sources}),
        "golden_sha256": frozen.sha256,
    }
    manifest = snapshots.write(rows, settings().validation_fraction, facts)
    written = snapshots.read(manifest["dataset_id"])
    golden.check_no_leak(written["text"], frozen, manifest["dataset_uri"])
    return manifest


def _read_all(sources: Iterable[Source]) -> tuple[list[pd.DataFrame], dict[str, FileAccount]]:
    """The rows of all readable files, and the accounts of the others by URI."""
    config = settings()
    frames, unreadable = [], {}
    for source in sources:
        content = lake.read_bytes(source.uri)
        try:
            frame = read_rows(content, source.key, config.text_column, config.label_column)
        except UnreadableFileError as error:
            unreadable[source.uri] = _quarantine_file(source, content, str(error))
        except Exception as error:  # one odd file must not stop the others, whatever it does to a parser
            logger.exception("%s cannot be read", source.key)
            unreadable[source.uri] = _quarantine_file(source, content, f"{type(error).__name__}: {error}")
        else:
            frames.append(frame.assign(uri=source.uri, batch_id=source.batch_id))
    return frames, unreadable


def _judge(frames: list[pd.DataFrame], frozen: golden.GoldenSet | None, parent: pd.DataFrame | None) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame(columns=[*REJECTED_COLUMNS, "uri", "batch_id"])
    config = settings()
    allowed = config.labels or (frozen.labels if frozen is not None else None)
    known = None if parent is None else parent.set_index(parent["text"].map(normalise))["label"]
    return check_rows(
        pd.concat(frames, ignore_index=True),
        allowed_labels=allowed,
        max_characters=config.max_text_characters,
        min_rows_per_label=config.min_rows_per_label,
        golden_texts=frozen.normalised if frozen is not None else (),
        known=known,
    )


def _missing(accepted: pd.DataFrame) -> str:
    """Why a first model cannot be trained and tested on these rows yet; empty if it can."""
    config = settings()
    needed = round(config.golden_min_rows / config.golden_fraction)
    if len(accepted) < needed:
        return f"{len(accepted)} good rows so far, and the first model needs {needed} (BERT_GOLDEN_MIN_ROWS)"
    if accepted["label"].nunique() < 2:
        return "all rows have the same label; a classifier needs two"
    return ""


def _account(source: Source, rows: pd.DataFrame, quarantines: dict[str, str], *, waiting: bool) -> FileAccount:
    mine = rows[rows["uri"] == source.uri]
    if waiting:
        return FileAccount(
            key=source.key, batch_id=source.batch_id, rows_in=len(mine), used=0, rejected=0, waiting=len(mine)
        )
    by_rule = mine.loc[mine["rule"] != "", "rule"].value_counts().sort_index().to_dict()
    good = int((mine["rule"] == "").sum())
    return FileAccount(
        key=source.key,
        batch_id=source.batch_id,
        rows_in=len(mine),
        used=good,
        rejected=len(mine) - good,
        by_rule=by_rule,
        quarantine=quarantines.get(source.batch_id) if by_rule else None,
    )


def _quarantine_rows(rejected: pd.DataFrame) -> dict[str, str]:
    """Writes each batch's rejected rows as Parquet; returns the URIs by batch."""
    uris = {}
    for batch_id, rows in rejected.groupby("batch_id"):
        # Undecodable bytes are kept readable (\udce9); Parquet takes valid UTF-8 only.
        printable = rows[REJECTED_COLUMNS].assign(
            text=rows["text"].map(_printable), label=rows["label"].map(_printable)
        )
        uri = lake.quarantine(str(batch_id), "rejected.parquet")
        uris[str(batch_id)] = lake.write_bytes(uri, _parquet(printable))
    return uris


def _quarantine_file(source: Source, content: bytes, reason: str) -> FileAccount:
    """Keeps a file that is no table, whole, with the reason beside it."""
    name = lake.plain(source.key.removeprefix("incoming/"))
    uri = lake.write_bytes(lake.quarantine(source.batch_id, f"files/{name}"), content)
    lake.write_json(f"{uri}.reason.json", {"file": source.key, "rule": "unreadable_file", "reason": reason})
    logger.warning("%s is quarantined whole: %s", source.key, reason)
    return FileAccount(
        key=source.key,
        batch_id=source.batch_id,
        rows_in=1,
        used=0,
        rejected=1,
        by_rule={"unreadable_file": 1},
        quarantine=uri,
        reason=reason,
    )


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.reset_index(drop=True).to_parquet(buffer, index=False)
    return buffer.getvalue()
