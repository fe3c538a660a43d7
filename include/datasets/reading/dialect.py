"""The dialect of a CSV file: what separates its cells, what quotes them, and where its header is.

The header decides: the right separator is the one with which it names a text and a label. What it leaves open, and how
quotes are written, is tried on a sample, and the dialect that makes most rows whole wins.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

from include.datasets.reading.records import Record, fits, plain_cells, records
from include.datasets.reading.table import UnreadableFileError, Wanted, find_places, has_places

SAMPLE_BYTES = 256 << 10
SAMPLE_ROWS = 300
HEADER_LINES = 20  # that a header's names may go over
HEADER_WITHIN = 10  # lines
NEARLY_ALL = 0.9
ESCAPED_LINES = 50
BLOCK = 4 << 20  # bytes

DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'^"?sep=(.)"?;*,*$', re.IGNORECASE)
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060"))


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    ``names`` is its header, above which ``skipped`` lines stand; ``start`` is where its first row begins, in bytes.
    """

    delimiter: str
    quote: str = '"'  # empty: none, as in tables that a database writes
    backslash: bool = False  # \" inside a quoted cell, and not ""
    blank_before_quote: bool = False  # a, "b"
    line_end: str = "\n"
    start: int = 0
    names: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is RFC 4180's, but for the separator: what fast readers read."""
        return self.quote == '"' and not self.backslash and not self.blank_before_quote and self.line_end == "\n"


def find_dialect(path: Path, wanted: Wanted, partitions: Mapping[str, str | None]) -> Dialect:
    """The dialect of a UTF-8 file. Raises UnreadableFileError if it has no header that names text and label."""
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    line_end = "\n" if b"\n" in head or b"\r" not in head else "\r"
    if len(head) == SAMPLE_BYTES:  # the last line may be cut
        head = head[: head.rfind(line_end.encode()) + 1] or head
    text = head.decode("utf-8", "surrogateescape")
    start, separator = _preamble(text)
    backslashes = _escaped_lines(path)
    if not text[start:].strip():
        raise UnreadableFileError("the file has no header and no rows")
    for begin in _line_starts(text, start):  # lines above the header: a title, a comment
        found = _dialect_of(text[begin:] + backslashes, separator, line_end, wanted, partitions)
        if has_places(found.names, wanted, partitions):
            offset = len(text[:begin].encode("utf-8", "surrogateescape"))
            return replace(found, start=found.start + offset, skipped=text[start:begin].count(line_end))
    found = _dialect_of(text[start:], separator, line_end, wanted, partitions)
    if first := _first_row_is_data(text[start:], found):
        shown = ", ".join(f'"{cell[:60]}"' for cell in first[:6])
        raise UnreadableFileError(
            f"the file has no header: its first line is data ({shown}); put a line with the columns' names before it, "
            "such as text,label"
        )
    find_places(found.names, wanted, partitions)  # says what is missing
    raise AssertionError("unreachable")


def _dialect_of(
    sample: str, separator: str, line_end: str, wanted: Wanted, partitions: Mapping[str, str | None]
) -> Dialect:
    """The likeliest dialect of a sample that begins with the header; its rows start behind that, in bytes."""
    candidates = _candidates(sample, [separator] if separator else _delimiters(sample), line_end)
    best = max(candidates, key=lambda dialect: _score(sample, dialect, wanted, partitions))
    names, length = _header(sample, best)
    if _has_row_names(sample[length:], best, len(names)):
        names = ["", *names]
    return replace(best, names=tuple(names), start=len(sample[:length].encode("utf-8", "surrogateescape")))


def _line_starts(text: str, start: int) -> list[int]:
    """Where the first lines begin from here on."""
    starts = [start]
    for line in islice(io.StringIO(text[start:], newline=""), HEADER_WITHIN - 1):
        starts.append(starts[-1] + len(line))
    return [begin for begin in starts if text[begin:].strip()]


def _preamble(text: str) -> tuple[int, str]:
    """How many characters come before the header, blank lines and Excel's ``sep=;``, and the separator it names."""
    start, separator = 0, ""
    for line in io.StringIO(text, newline=""):
        content = line.strip("\r\n \ufeff")
        match = _SEP_LINE.match(line.strip("\r\n\ufeff")) if not separator else None
        if match:
            separator = match[1]
        elif content:
            break
        start += len(line)
    return start, separator


def _candidates(sample: str, delimiters: list[str], line_end: str) -> list[Dialect]:
    """The dialects of which there is a trace in the sample."""
    found = []
    for delimiter, quote, backslash, blank in product(delimiters, ('"', "'", ""), (False, True), (False, True)):
        escaped = f"\\{quote}" in sample if quote else f"\\{delimiter}" in sample
        is_there = {'"': True, "'": _is_single_quoted(sample, delimiter), "": '"' in sample or backslash}[quote]
        if is_there and (escaped or not backslash) and (not blank or (quote and f" {quote}" in sample)):
            found.append(Dialect(delimiter, quote, backslash, blank, line_end))
    return found


def _is_single_quoted(sample: str, delimiter: str) -> bool:
    """Whether single quotes stand around cells in nearly all lines: here and there they are apostrophes."""
    lines = [line for line in islice(io.StringIO(sample, newline=""), SAMPLE_ROWS) if line.strip()]
    edge = re.escape(delimiter)
    quoted = sum(bool(re.search(rf"(?:^|{edge})\s*'[^\n]*'\s*(?:{edge}|$)", line.rstrip("\r\n"))) for line in lines)
    return quoted >= NEARLY_ALL * len(lines)


def _delimiters(sample: str) -> list[str]:
    return [delimiter for delimiter in DELIMITERS if delimiter in sample] or [","]


def _escaped_lines(path: Path) -> str:
    """Lines from all over the file in which a backslash stands before a quote: they tell who escapes how."""
    found: list[str] = []
    with path.open("rb") as file:
        while (block := file.read(BLOCK)) and len(found) < ESCAPED_LINES:
            if b"\\" not in block:
                continue
            for line in re.finditer(rb"[\r\n]([^\r\n]*\\[\"'][^\r\n]*)(?=[\r\n])", block):
                found.append(line[1].decode("utf-8", "surrogateescape"))
                if len(found) == ESCAPED_LINES:
                    break
    return "".join(f"{line}\n" for line in found)


def _header(sample: str, dialect: Dialect) -> tuple[list[str], int]:
    """The names in the first line, without blanks and quotes around them, and the line's length."""
    lines = list(islice(io.StringIO(sample, newline=""), HEADER_LINES))
    record = next(records(lines, dialect))
    cells = record.cells if record.cells is not None else plain_cells(record.raw, dialect)
    names = [" ".join(cell.translate(_INVISIBLE).strip(" \t\"'`").split()) for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names, sum(map(len, lines[: record.end]))


def _score(sample: str, dialect: Dialect, wanted: Wanted, partitions: Mapping[str, str | None]) -> tuple[float, ...]:
    """The higher, the likelier: header found, rows whole, cells a row; the plainer dialect if all else is equal."""
    names, length = _header(sample, dialect)
    rows = _sample_rows(sample[length:], dialect)
    width = len(names)
    whole = [record for record in rows if record.cells is not None and fits(record.cells, width, width)]
    quotes = "\"'" if _is_single_quoted(sample, dialect.delimiter) else '"'
    dirty = sum(_has_left_over_quotes(record.cells or [], dialect, quotes) for record in whole)
    share = (len(whole) - dirty) / len(rows) if rows else 0.0
    return (
        float(has_places(names, wanted, partitions)),
        round(share, 3) if width > 1 or len(rows) == 0 else share / 10,
        -float(dialect.backslash) - float(dialect.blank_before_quote) - float(dialect.quote != '"'),
        float(width),
    )


def _sample_rows(sample: str, dialect: Dialect) -> list[Record]:
    lines = io.StringIO(sample, newline="").readlines()
    # The start, and the lines with backslashes at the end.
    some = lines if len(lines) <= SAMPLE_ROWS + ESCAPED_LINES else lines[:SAMPLE_ROWS] + lines[-ESCAPED_LINES:]
    return list(records(some, dialect))


def _has_left_over_quotes(cells: list[str], dialect: Dialect, quotes: str) -> bool:
    """Whether a cell begins and ends in quotes that were not taken off, or in one whose other half is elsewhere."""
    return any(
        len(cell := whole.strip()) > 1 and cell[0] in quotes and (cell[-1] == cell[0] or dialect.quote == cell[0])
        for whole in cells
    )


def _has_row_names(rows: str, dialect: Dialect, width: int) -> bool:
    """Whether nearly all rows have one cell more than the header, as R writes them: the first is the row's name."""
    sizes = [len(record.cells or []) for record in _sample_rows(rows, dialect) if (record.cells or [""])[-1].strip()]
    return len(sizes) > 1 and sizes.count(width + 1) >= NEARLY_ALL * len(sizes)


def _first_row_is_data(sample: str, dialect: Dialect) -> list[str]:
    """The first row's cells if it looks like one of the others: a cell comes again below it, or is a sentence."""
    rows = [record.cells for record in _sample_rows(sample, dialect) if record.cells]
    if len(rows) < 2 or len(rows[0]) < 2:
        return []
    first, others = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    again = any(first[at] and sum(row[at] == first[at] for row in others) > 0 for at in range(len(first)))
    sentence = any(len(cell.split()) >= 4 for cell in first)
    return first if again or sentence else []
