"""What a user does with files and a stack: looks at one before it is uploaded, and gets rejected rows back to mend."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.stack import Stack
from include import renaming
from include.lake import slug
from include.settings import settings

PIPELINE = "bert_model_training_pipeline"
COLUMNS = ("file", "row", "text", "label", "rule", "reason")
NOTHING_TO_DO = ("already_known", "in_golden_set", "duplicate")
LOOKED_AT_BYTES = 200 * 2**20  # a larger file is left to the pipeline
LOOKED_AT_ROWS = 50_000
SHOWN_LABELS = 8


@dataclass
class Look:
    """What can be said of a file before it is uploaded."""

    unreadable: str = ""  # why it cannot be read as a whole
    told: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def look(file: Path, key: str, environment: Mapping[str, str]) -> Look:
    """Reads a file as the pipeline of a stack with this environment will, under this key. Raises OSError."""
    from include.datasets.reading import UnreadableFileError

    if file.stat().st_size > LOOKED_AT_BYTES:
        return Look(told=[f"{file.stat().st_size / 2**20:.0f} MB: the pipeline will look at it"])
    try:
        rows, whole, warnings = _first_rows(file, key, environment)
    except UnreadableFileError as error:
        return Look(unreadable=str(error))
    read = f"{len(rows)} rows" if whole else f"the first {len(rows)} rows"
    broken = Counter(row["rule"] for row in rows if row["rule"])
    labels = Counter(str(row["label"]) for row in rows if not row["rule"])
    names = [label for label, _ in labels.most_common(SHOWN_LABELS)]
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    for rule, count in broken.most_common():
        example = next(row for row in rows if row["rule"] == rule)
        warnings.append(f"{count} of {read} will be rejected: {rule} (row {example['row']}: {example['reason']})")
    return Look(told=[f"{read}, {len(labels)} labels: {', '.join(names)}{more}"], warnings=warnings)


def _first_rows(file: Path, key: str, environment: Mapping[str, str]) -> tuple[list[dict[str, Any]], bool, list[str]]:
    """The first rows as the pipeline judges them, whether they are all, and warnings. Raises UnreadableFileError."""
    import pandas as pd

    from include.datasets.checks import check_rows
    from include.datasets.reading import UnreadableFileError, open_table

    columns = (environment.get("BERT_TEXT_COLUMN", ""), environment.get("BERT_LABEL_COLUMN", ""))
    with open_table(file, key, *columns) as table:
        frames, count = [], 0
        while count < LOOKED_AT_ROWS and (frame := next(table.frames, None)) is not None:
            frames.append(frame.astype({"text": object, "label": object, "extra": object}))
            count += len(frame)
        if not count:
            raise UnreadableFileError("it has no rows")
        rows = check_rows(
            pd.concat(frames, ignore_index=True).assign(file=key),
            allowed_labels=None,
            max_characters=settings().max_text_characters,
            min_rows_per_label=1,
            mapping=renaming.check(json.loads(environment.get("BERT_LABEL_MAPPING") or "{}")),
        )
        judged = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
        return judged, next(table.frames, None) is None, list(table.warnings)


@dataclass
class Mendable:
    """What a run rejected, written to ``path``; ``unreadable`` are files that were kept whole, with the reason."""

    run_id: str
    path: Path
    by_rule: Counter[str]
    unreadable: list[dict[str, Any]]


def write_rejected(stack: Stack, run_id: str, folder: Path) -> Mendable:
    """Writes the rows that a run rejected as a CSV file; without a run's id those of the newest run that rejected any.

    First come those that somebody has to mend, and then those that are there already.

    Raises FileNotFoundError if there is no such run, or none that rejected anything.
    """
    report = _report(stack, run_id)
    path = folder / f"rejected-{slug(report['run_id'])}.csv"
    counts: Counter[str] = Counter()
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig") as target:  # with the mark, Excel reads umlauts
        writer = csv.DictWriter(target, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for to_mend in (True, False):  # first what somebody has to look at
            for row in _rejected_rows(stack, report["files"]):
                if (row["rule"] not in NOTHING_TO_DO) is to_mend:
                    counts[row["rule"]] += 1
                    writer.writerow(row)
    return Mendable(report["run_id"], path, counts, [file for file in report["files"] if file["reason"]])


def _report(stack: Stack, run_id: str) -> dict[str, Any]:
    bucket, prefix = stack.env["BERT_BUCKET"], f"reports/{PIPELINE}/"
    wanted = f"{prefix}{slug(run_id)}/run.json" if run_id else ""
    pages = stack.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=wanted or prefix)
    found = [item for page in pages for item in page.get("Contents", []) if item["Key"].endswith("/run.json")]
    for item in sorted(found, key=lambda item: (item["LastModified"], item["Key"]), reverse=True):
        content: dict[str, Any] = json.loads(stack.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
        if content["rows"]["rejected"]:
            return content
    if run_id and not found:
        raise FileNotFoundError(f"no run {run_id} has left a report; the runs stand at {stack.airflow_url}")
    raise FileNotFoundError(f"the run {run_id} rejected nothing" if run_id else "no run has rejected anything yet")


def _rejected_rows(stack: Stack, files: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    keys = {file["key"] for file in files}
    for uri in dict.fromkeys(file["quarantine"] for file in files if file["quarantine"] and not file["reason"]):
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        content = io.BytesIO()
        stack.s3.download_fileobj(bucket, key, content)
        for part in pq.ParquetFile(content).iter_batches(columns=list(COLUMNS)):
            yield from (row for row in part.to_pylist() if row["file"] in keys)
