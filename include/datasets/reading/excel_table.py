"""Reads the first sheet of an Excel workbook."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from include.datasets.reading.table import (
    Places,
    Row,
    Table,
    UnreadableFileError,
    Wanted,
    find_places,
    frames_of,
    has_places,
)

MOST_UNPACKED = 1 << 30  # bytes; a full sheet of a million rows is less
MOST_CELLS = 50_000_000
HEADER_WITHIN = 10  # lines

_SHEET = re.compile(r"xl/(?!sharedStrings|styles).+\.xml")  # a workbook may keep its sheets wherever it likes
_CELL = re.compile(rb"""<(?:\w+:)?(?:c|row)\s[^>]*?\br\s*=\s*["']([A-Z]{0,3})([0-9]{1,7})["']""")


def read_xlsx(path: Path, wanted: Wanted, partitions: Mapping[str, str | None], limit: int) -> Table:
    """The rows of the first sheet, under its first line that is not empty. Raises UnreadableFileError."""
    _check_size(path, min(limit, MOST_UNPACKED))
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        workbook = CalamineWorkbook.from_path(str(path))
        rows = iter(workbook.get_sheet_by_index(0).to_python(skip_empty_area=True))
    except (CalamineError, OSError, ValueError, IndexError) as error:
        raise UnreadableFileError(f"the file is no Excel workbook, or it is damaged: {error}") from error
    first = list(islice(filter(_is_filled, rows), HEADER_WITHIN))
    if not first:
        raise UnreadableFileError(f"the first sheet, {workbook.sheet_names[0]!r}, is empty")
    headers = [[" ".join(str(cell).split()) for cell in row] for row in first]
    at = next((at for at, names in enumerate(headers) if has_places(names, wanted, partitions)), 0)
    names = headers[at]
    warnings = []
    if len(workbook.sheet_names) > 1:
        warnings.append(f"only the first of {len(workbook.sheet_names)} sheets, {workbook.sheet_names[0]!r}, was read")
    if at:
        warnings.append(f"{at} line(s) above the header were taken for a title and left out")
    return Table(frames_of(_rows(chain(first[at + 1 :], rows), find_places(names, wanted, partitions))), warnings)


def _rows(rows: Iterable[list[Any]], places: Places) -> Iterator[Row]:
    """Lines without any value are none: a sheet is as long as its formatting."""
    for at, cells in enumerate(filter(_is_filled, rows), start=1):
        values = [_value(cell) for cell in cells]
        label = values[places.label] if places.label is not None else places.label_in_path
        yield at, values[places.text], label, "", "", places.extra_of(values)


def _is_filled(cells: list[Any]) -> bool:
    return any(str(cell).strip() for cell in cells)


def _value(cell: Any) -> Any:
    """Excel keeps all numbers as floating-point ones, and an empty cell is an empty string."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return None if cell == "" else cell


def _check_size(path: Path, limit: int) -> None:
    """Raises UnreadableFileError if the workbook unpacks to too much, or its sheet spans too many cells."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > limit:
                raise UnreadableFileError(f"the workbook unpacks to {size / 2**30:.3g} GiB; save it as CSV")
            cells = max((_cells(archive, name) for name in archive.namelist() if _SHEET.fullmatch(name)), default=0)
    except (zipfile.BadZipFile, OSError) as error:
        raise UnreadableFileError(f"the file is no Excel workbook, or it is cut off: {error}") from error
    if cells > MOST_CELLS:
        raise UnreadableFileError(f"a sheet spans {cells:,} cells, most of them empty surely; save it as CSV")


def _cells(archive: zipfile.ZipFile, name: str) -> int:
    """How many cells a sheet spans, from its first one to the last: they are all held, be they empty."""
    rows = columns = 0
    rest = b""
    with archive.open(name) as sheet:
        while block := sheet.read(1 << 20):
            for column, row in set(_CELL.findall(rest + block)):
                rows = max(rows, int(row))
                columns = max(columns, _column_number(column))
            rest = block[-64:]
    return rows * columns


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number
