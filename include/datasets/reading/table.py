"""What every reader gives: frames of rows, and where in a file's columns the text and the label stand."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, takewhile
from typing import Any

import pandas as pd

COLUMNS = ["row", "text", "label", "rule", "reason", "extra"]
FRAME_ROWS = 65_536

TEXT_COLUMNS = (
    "text", "sentence", "content", "message", "utterance", "query", "question", "review", "comment", "body",
    "description", "title",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "category", "class", "target", "intent", "sentiment", "topic", "tag", "choice", "annotation",
)  # fmt: skip

QUARANTINE_COLUMNS = {"file", "row", "rule", "reason"}
"""Beside text and label in a file of rejected rows, which may come back mended; they say nothing about the text."""

LABEL_STUDIO_COLUMNS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
"""Beside the text in Label Studio's CSV and JSON-MIN. What else there is is the label, under the name it has there."""

Row = tuple[int, Any, Any, str, str, str]
"""One row, with the cells of ``COLUMNS``."""


class UnreadableFileError(ValueError):
    """The file as a whole is no table of labelled texts; the message says why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """The columns that somebody has named; empty: found by the usual names."""

    text: str = ""
    label: str = ""


@dataclass
class Table:
    """A file's rows, in frames of the columns ``COLUMNS``, and what somebody should know about the file.

    ``row`` counts from 1 (a header is not counted); text and label are as they stand in the file, None where there is
    none; ``rule`` and ``reason`` are empty unless the row itself cannot be read; ``extra`` is the other columns as a
    JSON object, or empty. ``warnings`` may grow while the frames are read.
    """

    frames: Iterator[pd.DataFrame]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Places:
    """Where text and label stand among the columns; the label may stand in the file's path instead.

    ``in_path`` are the other columns there.
    """

    names: tuple[str, ...]
    text: int
    label: int | None
    label_in_path: str | None = None
    in_path: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def extra(self) -> tuple[int, ...]:
        """The other columns that have a name and are worth keeping, in order."""
        mended = {"rule", "reason"} <= set(self.names)
        dropped = QUARANTINE_COLUMNS if mended else set()
        return tuple(
            at
            for at, name in enumerate(self.names)
            if at not in (self.text, self.label) and name and name not in dropped and not name.startswith("__index_")
        )

    def extra_of(self, values: Sequence[Any]) -> str:
        """The other columns of a row of values, which may have fewer, as JSON."""
        here = takewhile(lambda at: at < len(values), self.extra)
        return extra_json({**self.in_path, **{self.names[at]: values[at] for at in here}})


def find_places(names: Sequence[str], wanted: Wanted, partitions: Mapping[str, str | None]) -> Places:
    """Where the text and the label stand. Raises UnreadableFileError that says what is missing and what to do."""
    text = _find(names, wanted.text, TEXT_COLUMNS)
    in_path = list(partitions)
    # Of the usual names for a label the first counts that is there, be it in the file or in its path.
    label = _find([*names, *in_path], wanted.label, LABEL_COLUMNS, other_than=text)
    if label is None and set(names) >= LABEL_STUDIO_COLUMNS:
        rest = [at for at, name in enumerate(names) if at != text and name and name not in LABEL_STUDIO_COLUMNS]
        label = rest[0] if len(rest) == 1 else None
    if text is None or label is None:
        raise UnreadableFileError(_nothing_found(names, wanted, text is None, label is None))
    named = in_path[label - len(names)] if label >= len(names) else None
    others = {name: value for name, value in partitions.items() if name != named and value is not None}
    if named is None:
        return Places(tuple(names), text, label, None, others)
    return Places(tuple(names), text, None, partitions[named], others)


def has_places(names: Sequence[str], wanted: Wanted, partitions: Mapping[str, str | None]) -> bool:
    """Whether both columns are among these names."""
    try:
        find_places(names, wanted, partitions)
    except UnreadableFileError:
        return False
    return True


def _find(names: Sequence[str], wanted: str, usual: Iterable[str], other_than: int | None = None) -> int | None:
    """The column that was named, if it is there, else the first of the usual ones: sources may have other headers."""
    if wanted and wanted in names:
        return list(names).index(wanted)
    lowered = [name.strip().lower() for name in names]
    for name in ([wanted.strip().lower()] if wanted else []) + list(usual):
        if name in lowered and lowered.index(name) != other_than:
            return lowered.index(name)
    return None


def _nothing_found(names: Sequence[str], wanted: Wanted, no_text: bool, no_label: bool) -> str:
    shown = ", ".join(f'"{name[:40]}"' for name in names[:12]) or "no columns at all"
    missing = [what for what, is_missing in (("text", no_text), ("label", no_label)) if is_missing]
    named = [
        f"{'and ' if at else ''}{name!r}, which was named, is not there{_nearest(name, names)}"
        for at, name in enumerate(filter(None, (wanted.text if no_text else "", wanted.label if no_label else "")))
    ]
    settings = " ".join(f"BERT_{what.upper()}_COLUMN=…" for what in missing)
    params = " and ".join(f"{what}_column" for what in missing)
    usual = " and ".join("/".join((TEXT_COLUMNS if what == "text" else LABEL_COLUMNS)[:3]) for what in missing)
    beside = f"; {' '.join(named)}" if named else ""
    return (
        f"no {' column and no '.join(missing)} column among {shown}{beside}: name it for all files "
        f"({settings} make up, or in .env), for one run ({params} in its form or conf), or call it {usual} …"
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f" (do you mean {close[0]!r}?)" if close else ""


def frames_of(rows: Iterable[Row]) -> Iterator[pd.DataFrame]:
    """Rows in frames. Objects: pandas would make numbers of some labels, and lose digits of long ones."""
    iterator = iter(rows)
    while some := list(islice(iterator, FRAME_ROWS)):
        yield pd.DataFrame(some, columns=COLUMNS, dtype=object).astype({"row": int})


def extra_json(values: Mapping[str, Any]) -> str:
    """The other columns of a row, without those that are empty."""
    kept = {name: value for name, value in values.items() if value is not None and value != ""}
    return printable(json.dumps(kept, ensure_ascii=False, default=str)) if kept else ""


def printable(text: str) -> str:
    r"""A text with undecodable bytes as something to look at: ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode()
