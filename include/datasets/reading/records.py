"""The rows of a CSV text, one after the other, with a way on after a row that is not whole.

Python's own reader in its strict mode says where a quote is missing, but gives up there. Here only the line in which
the damaged row begins is lost, and the next line begins a new one.
"""

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.datasets.reading.dialect import Dialect

LONGEST_ROW = 2_000  # lines; a quoted cell that goes on for longer has lost its quote
LONGEST_CELLS = 4 << 20  # characters

csv.field_size_limit(sys.maxsize)  # a 1 MB cell is a row to reject, not a file to lose


@dataclass(frozen=True)
class Record:
    """One row: its cells, or None and why there are none. ``end`` is the number of lines up to its end."""

    cells: list[str] | None
    end: int
    raw: str = ""
    problem: str = ""


def records(
    lines: list[str], dialect: "Dialect", needed: int = 0, width: int = 0, *, is_last: bool = True
) -> Iterator[Record]:
    """The rows in these lines, which end as they did in the file; blank lines are none.

    With a ``width``, a row that goes over several lines has to have the header's cells, or at least the ``needed``
    ones, or lines were merged: then only the first of them is lost. Unless these lines are the ``is_last`` ones, a row
    that does not end in them is left to come again with more.
    """
    options = reader_options(dialect)
    escaped = [_escape(line, dialect) for line in lines] if dialect.backslash else lines
    at = 0
    while at < len(lines):
        source = _Lines(escaped, at)
        reader = csv.reader(source, strict=True, **options)
        try:
            for cells in reader:
                if source.at - at > 1 and width and not fits(cells, needed, width):
                    yield _lost(lines, at, "a quote is missing, or not doubled inside a quoted cell")
                    break
                at = source.at
                if len(cells) > 1 or (cells and cells[0].strip()):
                    yield Record(cells, at)
                source.begin(at)
            else:
                return
        except csv.Error as error:
            if not is_last and source.at == len(lines) and not source.gave_up:
                return
            yield _mended(escaped, at, options, needed, width) or _lost(lines, at, _problem(error))
        at += 1


def fits(cells: list[str], needed: int, width: int) -> bool:
    """Whether a row has the cells it needs, and no more than the header but empty ones: Excel writes such."""
    return needed <= len(cells) <= width or (len(cells) > width and not any(cell.strip() for cell in cells[width:]))


def plain_cells(line: str, dialect: "Dialect") -> list[str]:
    """The cells of a line as if there were no quotes."""
    return line.rstrip("\r\n").split(dialect.delimiter)


def reader_options(dialect: "Dialect") -> dict[str, Any]:
    """The dialect as Python's csv module wants it."""
    escape = "\\" if dialect.backslash else None
    if not dialect.quote:
        return {"delimiter": dialect.delimiter, "quoting": csv.QUOTE_NONE, "escapechar": escape}
    return {
        "delimiter": dialect.delimiter,
        "quotechar": dialect.quote,
        "escapechar": escape,
        "skipinitialspace": dialect.blank_before_quote,
    }


def _escape(line: str, dialect: "Dialect") -> str:
    """A line in which each backslash that escapes nothing is escaped itself: csv would drop it."""
    if "\\" not in line:
        return line
    escaped = dialect.quote or f'{dialect.delimiter}"'
    return re.sub(rf"(\\[\\{re.escape(escaped)}])|\\", lambda match: match[1] or "\\\\", line)


class _Lines:
    """Hands lines to a reader, and ends a row that takes too many of them."""

    def __init__(self, lines: list[str], at: int) -> None:
        self.lines, self.at, self.gave_up = lines, at, False
        self.begin(at)

    def begin(self, at: int) -> None:
        """Starts to count a row's lines."""
        self.last, self.characters = at + LONGEST_ROW, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.at >= len(self.lines):
            raise StopIteration
        if self.at >= self.last or self.characters > LONGEST_CELLS:
            self.gave_up = True
            raise StopIteration
        line = self.lines[self.at]
        self.at += 1
        self.characters += len(line)
        return line


def _mended(lines: list[str], at: int, options: dict[str, Any], needed: int, width: int) -> Record | None:
    """The row of a line whose only fault is blanks between a quote and the separator."""
    delimiter, quote = re.escape(options["delimiter"]), options.get("quotechar", '"')
    clean = re.sub(rf"{quote}[ \t]+(?={delimiter}|[\r\n]*$)", quote, lines[at])
    if clean == lines[at]:
        return None
    try:
        (cells,) = csv.reader([clean], strict=True, **options)
    except (csv.Error, ValueError):
        return None
    return Record(cells, at + 1) if not width or fits(cells, needed, width) else None


def _lost(lines: list[str], at: int, problem: str) -> Record:
    return Record(None, at + 1, lines[at].rstrip("\r\n"), problem)


def _problem(error: csv.Error) -> str:
    if "end of data" in str(error):
        return "a quoted cell is still open at the end; a quote is missing"
    return f"{error}; a quote is missing, or not doubled inside a quoted cell"
