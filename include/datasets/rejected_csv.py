"""Rejected rows as text: ``python -m include.datasets.rejected_csv s3://…/rejected.parquet``.

For whoever has no business with Parquet, as Airflow's webserver: this is a process of its own, and holds a part of the
rows at a time. It imports little, since somebody waits for it: for a file of this machine no client for S3. ``--json``
writes some of them, one JSON object a line.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow.parquet as pq

COLUMNS = ("file", "row", "text", "label", "rule", "reason")
ROWS_AT_ONCE = 5_000


def rows_of(uri: str) -> Iterator[dict[str, Any]]:
    """The rows of a file in quarantine, by its URI or its path, in order. Raises FileNotFoundError."""
    with _open(uri) as content:
        for part in pq.ParquetFile(content).iter_batches(batch_size=ROWS_AT_ONCE, columns=list(COLUMNS)):
            yield from part.to_pylist()


def _open(uri: str) -> Any:
    if "://" not in uri:
        return Path(uri).open("rb")  # the caller closes it
    from include import objects  # takes longer to import than all the rest

    if not objects.exists(uri):
        raise FileNotFoundError(uri)
    return objects.filesystem(uri).open(uri, "rb")


def write_csv(rows: Iterable[dict[str, Any]], target: TextIO) -> None:
    """Writes rows as a file to mend."""
    target.write("\ufeff")  # with the mark, Excel reads umlauts
    writer = csv.DictWriter(target, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.datasets.rejected_csv", description=__doc__)
    parser.add_argument("uri", help="a rejected.parquet, or its path")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of CSV")
    parser.add_argument("--offset", type=int, default=0, help="so many rows are left out first (%(default)s)")
    parser.add_argument("--limit", type=int, help="no more rows than this")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    end = None if options.limit is None else options.offset + options.limit
    rows = islice(rows_of(options.uri), options.offset, end)
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    write_csv(rows, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
