"""Reads the first sheet of an Excel workbook."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from include.datasets.reading.table import (
    Places,
    Row,
    Table,
    UnreadableFileError,
    Wanted,
    extra_json,
    find_places,
    frames_of,
)

MOST_UNPACKED = 1 << 30  # bytes; a full sheet of a million rows is less


def read_xlsx(path: Path, wanted: Wanted, partitions: Mapping[str, str | None], limit: int) -> Table:
    """The rows of the first sheet, under its first line that is not empty. Raises UnreadableFileError."""
    _check_size(path, min(limit, MOST_UNPACKED))
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        workbook = CalamineWorkbook.from_path(str(path))
        rows = iter(workbook.get_sheet_by_index(0).to_python(skip_empty_area=True))
    except (CalamineError, OSError, ValueError, IndexError) as error:
        raise UnreadableFileError(f"the file is no Excel workbook, or it is damaged: {error}") from error
    header = next((row for row in rows if _is_filled(row)), None)
    if header is None:
        raise UnreadableFileError(f"the first sheet, {workbook.sheet_names[0]!r}, is empty")
    names = [" ".join(str(cell).split()) for cell in header]
    warnings = []
    if len(workbook.sheet_names) > 1:
        warnings.append(f"only the first of {len(workbook.sheet_names)} sheets, {workbook.sheet_names[0]!r}, was read")
    return Table(frames_of(_rows(rows, find_places(names, wanted, partitions))), warnings)


def _rows(rows: Iterator[list[Any]], places: Places) -> Iterator[Row]:
    """Lines without any value are none: a sheet is as long as its formatting."""
    for at, cells in enumerate(filter(_is_filled, rows), start=1):
        values = [_value(cell) for cell in cells]
        label = values[places.label] if places.label is not None else places.label_in_path
        extra = extra_json({places.names[i]: values[i] for i in places.extra if i < len(values)})
        yield at, values[places.text], label, "", "", extra


def _is_filled(cells: list[Any]) -> bool:
    return any(str(cell).strip() for cell in cells)


def _value(cell: Any) -> Any:
    """Excel keeps all numbers as floating-point ones, and an empty cell is an empty string."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return None if cell == "" else cell


def _check_size(path: Path, limit: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UnreadableFileError(f"the file is no Excel workbook, or it is cut off: {error}") from error
    if size > limit:
        raise UnreadableFileError(f"the workbook unpacks to {size / 2**30:.3g} GiB; save it as CSV")
