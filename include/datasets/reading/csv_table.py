"""Reads CSV files of any dialect and size, some megabytes at a time.

pyarrow reads what is clean, ten times as fast as Python's csv module. Whether a block is clean is seen from where its
quotes stand; one that is not, and any dialect but the plain one, goes to ``records``, where each row is judged by
itself. Both give the same rows for a clean block.
"""
# ruff: noqa: TID253 - only imported inside tasks; pandas and numpy are what it is about

import codecs
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa

from include.datasets.reading import arrow
from include.datasets.reading.dialect import Dialect, find_dialect
from include.datasets.reading.encodings import to_utf8
from include.datasets.reading.records import Record, fits, records
from include.datasets.reading.table import (
    COLUMNS,
    Places,
    Row,
    Table,
    Wanted,
    find_places,
    frames_of,
)

BLOCK = 4 << 20  # bytes; with twice as many a reader holds 60 MB more and is no faster
Part = tuple[int, int]
"""Which of how many parts of a file, of about the same size."""

WHOLE: Part = (0, 1)

SHOWN = 1000  # bytes of a row that is lost for its length
LONGEST_RECORD = 32 << 20  # bytes; a longer piece without an end of a row has a quote that nobody closed


class DamagedPartError(ValueError):
    """A part of a file cannot be read by itself: its quotes do not say where its rows end."""


def read_csv(
    path: Path, folder: Path, wanted: Wanted, partitions: Mapping[str, str | None], part: Part = WHOLE
) -> Table:
    """The rows of a CSV file, or of a part of it. ``folder`` is for what has to be transcoded.

    Raises UnreadableFileError; where only a part is asked for DamagedPartError, also while the rows are read.
    """
    path, warnings = to_utf8(path, folder)
    dialect = find_dialect(path, wanted, partitions)
    places = find_places(dialect.names, wanted, partitions)
    if dialect.skipped:
        warnings.append(f"{dialect.skipped} line(s) above the header were taken for a title and left out")
    begin, end = _range_of(path, dialect, part)
    return Table(_frames(path, dialect, places, begin, end), warnings)


def _range_of(path: Path, dialect: Dialect, part: Part) -> tuple[int, int | None]:
    """The bytes of a part, from a row's begin to a row's end; the last one's end is the file's.

    A line ends a row if the number of quotes before it is even. That is so only while all quotes stand where they
    should, which is seen when the parts are read.
    """
    number, parts = part
    if parts == 1:
        return dialect.start, None
    if not dialect.is_plain:
        raise DamagedPartError("only plain CSV is read in parts")
    step = max(1, (path.stat().st_size - dialect.start) // parts)
    cuts, quotes, at = [dialect.start], 0, dialect.start
    with path.open("rb") as file:
        file.seek(at)
        for cut in range(1, parts):
            while at < dialect.start + cut * step and (block := file.read(min(BLOCK, dialect.start + cut * step - at))):
                quotes, at = quotes + block.count(b'"'), at + len(block)
            for line in iter(lambda: file.readline(LONGEST_RECORD), b""):
                quotes, at = quotes + line.count(b'"'), at + len(line)
                if quotes % 2 == 0 and line.endswith(b"\n"):
                    break
            cuts.append(at)
    return cuts[number], cuts[number + 1] if number + 1 < parts else None


def _frames(path: Path, dialect: Dialect, places: Places, begin: int, end: int | None) -> Iterator[pd.DataFrame]:
    before = 0
    for frame in _unnumbered(path, dialect, places, begin, end):
        yield frame.assign(row=np.arange(before + 1, before + len(frame) + 1))
        before += len(frame)


def _unnumbered(path: Path, dialect: Dialect, places: Places, begin: int, stop: int | None) -> Iterator[pd.DataFrame]:
    rest = b""
    is_part = begin != dialect.start or stop is not None
    with path.open("rb") as file:
        file.seek(begin)
        while True:
            read = file.read(BLOCK if stop is None else min(BLOCK, stop - file.tell()))
            piece, is_last = rest + read, not read
            if not piece:
                return
            end = _clean_end(piece, dialect, is_last=is_last)
            if end is None and is_part:
                raise DamagedPartError("its quotes do not say where rows end")
            if end is None:
                rows, rest = _read_damaged(piece, dialect, places, is_last=is_last)
                if len(rest) >= LONGEST_RECORD:
                    start = rest[:SHOWN].decode("utf-8", "replace")
                    reason = f"a row of more than {LONGEST_RECORD >> 20} MiB; is a quote or a line end missing?"
                    rows.append((0, start, None, "wrong_quotes", reason, ""))
                    rest = _next_line(file, rest, dialect)
                yield from frames_of(rows)
            else:
                block, rest = piece[:end], piece[end:]
                frame = _read_clean(block, dialect, places) if block else None
                yield from [frame] if frame is not None else frames_of(_read_damaged(block, dialect, places)[0])


def _next_line(file: BinaryIO, piece: bytes, dialect: Dialect) -> bytes:
    """What has been read behind the next line end, without holding what comes before it."""
    line_end, piece = dialect.line_end.encode(), piece[-1:]
    while piece and line_end not in piece:
        piece = file.read(BLOCK)
    return piece.partition(line_end)[2]


def _clean_end(piece: bytes, dialect: Dialect, *, is_last: bool) -> int | None:
    """Where the last whole row in a piece ends; None if its quotes do not stand where they should."""
    if not dialect.is_plain or piece.startswith(codecs.BOM_UTF8):  # pyarrow would drop it
        return None
    content = np.frombuffer(piece, np.uint8)
    quotes = np.flatnonzero(content == ord('"'))
    if len(quotes) and not _quotes_are_right(content, quotes, dialect):
        return None
    if is_last:
        end = len(piece)
    else:
        end = piece.rfind(b"\n") + 1
        while end and np.searchsorted(quotes, end) % 2:  # a line end inside quotes
            end = piece.rfind(b"\n", 0, end - 1) + 1
        if end == 0 and len(piece) >= LONGEST_RECORD:
            return None
    is_open = is_last and len(quotes) % 2
    lone_returns = b"\r" in piece and piece.count(b"\r", 0, end) != piece.count(b"\r\n", 0, end)
    return None if is_open or lone_returns else end


def _quotes_are_right(content: "np.ndarray[tuple[int], np.dtype[np.uint8]]", quotes: "np.ndarray[tuple[int], np.dtype[np.intp]]", dialect: Dialect) -> bool:  # fmt: skip # noqa: E501
    """Whether each run of quotes opens a cell at its start, closes it at its end, or is doubled inside of it."""
    starts = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(quotes))
    first, last = quotes[starts], quotes[starts + lengths - 1]
    outside_before, outside_after = starts % 2 == 0, (starts + lengths) % 2 == 0
    edges = np.zeros(256, bool)
    edges[[ord(dialect.delimiter), ord("\n"), ord("\r")]] = True
    opens = (first == 0) | edges[content[first - 1]]
    closes = (last == len(content) - 1) | edges[content[np.minimum(last + 1, len(content) - 1)]]
    return bool(np.all(opens[outside_before]) and np.all(closes[outside_after]))


def _read_clean(block: bytes, dialect: Dialect, places: Places) -> pd.DataFrame | None:
    """A block's rows by pyarrow; None if a row has not the header's number of cells."""
    columns = arrow.read_block(block, dialect.delimiter, len(dialect.names))
    if columns is None:
        return None
    size = len(columns[places.text])
    label = arrow.texts(columns[places.label]) if places.label is not None else [places.label_in_path] * size
    others = {name: pa.repeat(pa.scalar(value.encode()), size) for name, value in places.in_path.items()}
    extra = arrow.json_objects(others | {places.names[at]: columns[at] for at in places.extra}, size)
    frame = {
        "row": np.zeros(size, np.int64),
        "text": arrow.texts(columns[places.text]),
        "label": label,
        "rule": "",
        "reason": "",
        "extra": extra,
    }
    return pd.DataFrame(frame, columns=COLUMNS)


def _read_damaged(piece: bytes, dialect: Dialect, places: Places, *, is_last: bool = True) -> tuple[list[Row], bytes]:
    """A piece's rows one by one, whatever is wrong with them, and what is left of it for the next piece."""
    lines = io.StringIO(piece.decode("utf-8", "surrogateescape"), newline="").readlines()
    cut = [] if is_last or lines[-1].endswith("\n") else [lines.pop()]
    width = len(dialect.names)
    needed = 1 + max(places.text, places.label if places.label is not None else 0)
    rows, end = [], 0
    for record in records(lines, dialect, needed, width, is_last=is_last):
        rows.append(_row(record, dialect, places, needed))
        end = record.end
    left = "" if is_last else "".join(lines[end:] + cut)
    return rows, left.encode("utf-8", "surrogateescape")


def _row(record: Record, dialect: Dialect, places: Places, needed: int) -> Row:
    cells, width = record.cells, len(dialect.names)
    if cells is None:
        return 0, record.raw, None, "wrong_quotes", record.problem, ""
    if not fits(cells, needed, width):
        hint = "is a line broken, or the separator missing?" if len(cells) < needed else "a text with it needs quotes"
        reason = f"{len(cells)} cells where the header has {width} (separator {dialect.delimiter!r}): {hint}"
        return 0, dialect.delimiter.join(cells), None, "wrong_column_count", reason, ""
    label = cells[places.label] if places.label is not None else places.label_in_path
    return 0, cells[places.text], label, "", "", places.extra_of(cells)
