"""Rejected rows, read back from quarantine."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from include import objects
from include.datasets.intake import FileAccount

PER_RULE = 5
EXAMPLES = 60


def examples(files: Sequence[FileAccount]) -> list[dict[str, Any]]:
    """Some of the rows that were rejected of these files, at most ``PER_RULE`` of each rule."""
    found: list[dict[str, Any]] = []
    shown: Counter[str] = Counter()
    for row in rejected_rows(files):
        if shown[row["rule"]] < PER_RULE:
            shown[row["rule"]] += 1
            found.append(row)
        if len(found) >= EXAMPLES:
            break
    return found


def rejected_rows(files: Sequence[FileAccount]) -> Iterator[dict[str, Any]]:
    """All rows that were rejected of these files, a part in memory at a time; whole files are not among them."""
    from include.datasets.rejected_csv import rows_of

    keys = {file.key for file in files}
    for uri in dict.fromkeys(file.quarantine for file in files if file.quarantine and not file.reason):
        if objects.exists(uri):
            yield from (row for row in rows_of(uri) if row["file"] in keys)
