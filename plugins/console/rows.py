"""Labelled rows that a page sends, and the file that becomes of them."""

import csv
from pathlib import Path

from flask import request

from plugins.console.access import Refused
from plugins.console.catalogue import of_request

LONGEST_CELL = 100_000  # characters of a text
COLUMNS = ("text", "label")


def posted() -> list[dict[str, str]]:
    """The rows of the request, text and label each. Raises Refused."""
    body = request.get_json(silent=True)
    rows = body.get("rows") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not rows:
        raise Refused(of_request()("There is no row to send yet."))
    fit = all(
        isinstance(row, dict) and all(isinstance(row.get(name), str) for name in COLUMNS)
        and all(len(row[name]) <= LONGEST_CELL for name in COLUMNS)
        for row in rows
    )  # fmt: skip
    if not fit:
        raise Refused(of_request()("Each row needs a text and a label."))
    return [{name: row[name] for name in COLUMNS} for row in rows]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Writes rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
