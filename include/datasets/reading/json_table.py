"""Reads JSON: an object a line, an array, objects one after the other, or a table that pandas has written."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from include.datasets.reading.annotations import plain
from include.datasets.reading.encodings import to_utf8
from include.datasets.reading.table import (
    QUARANTINE_COLUMNS,
    Places,
    Row,
    Table,
    UnreadableFileError,
    Wanted,
    extra_json,
    find_places,
    frames_of,
    has_places,
)

SAMPLE_OBJECTS = 1000
TRIED_LINES = 20
LONGEST_TRIED_LINE = 4 << 20  # characters
DOCUMENT_BYTES = 512 << 20  # what does not have an object a line is read whole

LONGEST_LINE = 64 << 20  # characters; a longer one is no row
SHOWN = 1000  # characters of it
READ_AGAIN, READ_AGAIN_AT_LEAST = 5, 10 << 20  # how often all text may be read again after broken objects

_BETWEEN = re.compile(r"[\s,\[\]]*")
_NEXT_OBJECT = re.compile(r"(?:^[ \t,]*|\}\s*(?:,\s*)?)(?=\{)", re.MULTILINE)
_SEVERAL = re.compile(r"\}\s*(?:,\s*)?\{")
_DECODER = json.JSONDecoder()

Numbered = tuple[int, Any]
"""A row's number and its value; ``Garbage`` if it is no JSON."""


class Garbage(str):
    """Text that is no JSON."""

    __slots__ = ()


def read_json(path: Path, folder: Path, wanted: Wanted, partitions: Mapping[str, str | None]) -> Table:
    """The rows of a JSON file. ``folder`` is for what has to be transcoded. Raises UnreadableFileError."""
    path, warnings = to_utf8(path, folder)

    def is_row(value: Any) -> bool:
        return isinstance(value, dict) and has_places(list(plain(value)[0]), wanted, partitions)

    values = _lines(path) if _has_an_object_a_line(path) else _document(path, is_row)
    sample = list(islice(values, SAMPLE_OBJECTS))
    objects = [plain(value)[0] for _, value in sample if isinstance(value, dict)]
    if not objects:
        raise UnreadableFileError(
            "nothing in it is a JSON object; .jsonl has one object per line, .json an array of them"
        )
    counts = Counter(name for value in objects for name in value)
    names = [name for name, count in counts.items() if 2 * count >= len(objects)]  # one odd line names no column
    if not has_places(names, wanted, partitions):  # few of them are labelled
        names = list(counts)
    places = find_places(names, wanted, partitions)
    return Table(frames_of(_rows(chain(sample, values), places)), warnings)


def _rows(values: Iterable[Numbered], places: Places) -> Iterator[Row]:
    text_name = places.names[places.text]
    label_name = places.names[places.label] if places.label is not None else None
    mended = {"rule", "reason"} <= set(places.names)
    dropped = {text_name, label_name, ""} | (QUARANTINE_COLUMNS if mended else set())
    for at, value in values:
        if not isinstance(value, dict):
            raw = value if isinstance(value, Garbage) else json.dumps(value, ensure_ascii=False)
            yield at, str(raw), None, "not_json", "it is not a JSON object", ""
            continue
        record, missing = plain(value)
        label = record.get(label_name) if label_name is not None else places.label_in_path
        others = {name: other for name, other in record.items() if name not in dropped and other not in ([], {})}
        extra = extra_json({**places.in_path, **others})
        yield at, record.get(text_name), label, "label_missing" if missing else "", missing, extra


def _has_an_object_a_line(path: Path) -> bool:
    """Whether the first lines are objects, or an array's brackets and objects with commas behind them."""
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        if _is_one_long_object(file.readline(LONGEST_LINE)):
            return True
        file.seek(0)
        some = (file.readline(LONGEST_TRIED_LINE) for _ in range(TRIED_LINES))
        lines = [bare for line in some if (bare := _bare(line))]
    if len(lines) == 1:  # a table, maybe, as one object
        return False
    return sum(isinstance(_parse(line), dict) for line in lines) * 2 > len(lines)


def _is_one_long_object(line: str) -> bool:
    return len(line) == LONGEST_LINE and not line.endswith("\n") and line.lstrip().startswith("{")


def _lines(path: Path) -> Iterator[Numbered]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        at = 0
        while line := file.readline(LONGEST_LINE):
            at += 1
            if len(line) == LONGEST_LINE and not line.endswith("\n"):
                yield at, Garbage(line[:SHOWN])
                while line and not line.endswith("\n"):
                    line = file.readline(LONGEST_LINE)
            elif bare := _bare(line):
                value = _parse(bare)
                several = isinstance(value, Garbage) and _SEVERAL.search(bare) is not None
                values = list(_decoded(bare, at_least=0)) if several else [value]
                # One broken object may hold whole ones, which are no rows.
                for one in values if isinstance(values[0], dict) else [value]:
                    yield at, one


def _bare(line: str) -> str:
    """A line without what an array has around its objects."""
    line = line.strip().rstrip(",").rstrip()
    if line in ("[", "]"):
        return ""
    if line.startswith("[{"):
        line = line[1:]
    return line[:-1].rstrip() if line.endswith("}]") and _parse(line) == Garbage(line) else line


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # ValueError: no JSON, or a number of more digits than Python reads
        return Garbage(text)


def _document(path: Path, is_row: Callable[[Any], bool]) -> Iterator[Numbered]:
    """The objects of a file that is read whole, wherever its line ends are."""
    if path.stat().st_size > DOCUMENT_BYTES:
        raise UnreadableFileError(
            f"JSON of more than {DOCUMENT_BYTES >> 20} MiB needs one object per line (jq -c '.[]' makes that)"
        )
    values = _decoded(path.read_text(encoding="utf-8", errors="surrogateescape"))
    first = list(islice(values, 2))
    if len(first) == 1 and isinstance(first[0], dict):
        return enumerate(_unwrapped(first[0], is_row), start=1)
    return enumerate(chain(first, values), start=1)


def _decoded(text: str, at_least: int = READ_AGAIN_AT_LEAST) -> Iterator[Any]:
    """The values in a text, one after the other; what is none goes to where the next object begins."""
    at, left = _end_of(_BETWEEN, text, 0), READ_AGAIN * len(text) + at_least
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # Nobody says how far a reader came that met its limit of depth.
            stop = at + 1
            if isinstance(error, json.JSONDecodeError):  # which counts the line ends before it
                left -= error.pos - at + error.pos // 64
                stop = max(stop, text.rfind("\n", at, error.pos) + 1 or error.pos)
            else:
                left -= max(len(text) // 4, 64 << 10)
            following = _NEXT_OBJECT.search(text, stop) if left > 0 else None
            end = following.end() if following else len(text)
            value, at = Garbage(text[at:end].strip()), end
        yield value
        at = _end_of(_BETWEEN, text, at)


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _unwrapped(document: dict[str, Any], is_row: Callable[[Any], bool]) -> list[Any]:
    """The rows of a document that is one object: itself, lists in it, or a table in one of pandas' forms."""
    names, data = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, names), row, strict=False)) for row in data]
    columns = {name: value for name, value in document.items() if isinstance(value, dict | list)}
    if is_row(document) and (len(columns) < len(document) or plain(document)[0] is not document):
        return [document]
    lists = {name: value for name, value in columns.items() if isinstance(value, list) and any(map(is_row, value))}
    if lists:
        return [
            {"split": name, **row} if len(lists) > 1 and isinstance(row, dict) else row
            for name, rows in lists.items()
            for row in rows
        ]
    if len(columns) == len(document) and columns:
        if all(map(is_row, columns.values())):  # by index
            return list(columns.values())
        cells = {name: value if isinstance(value, dict) else dict(enumerate(value)) for name, value in columns.items()}
        return [{name: cells[name].get(key) for name in cells} for key in dict.fromkeys(chain(*cells.values()))]
    return [document]
