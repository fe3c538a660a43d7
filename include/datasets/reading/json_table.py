"""Reads JSON: an object a line, an array, objects one after the other, or a table that pandas has written."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from include.datasets.reading.annotations import plain
from include.datasets.reading.encodings import to_utf8
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

SAMPLE_OBJECTS = 1000
TRIED_LINES = 20
LONGEST_TRIED_LINE = 4 << 20  # characters
DOCUMENT_BYTES = 512 << 20  # what does not have an object a line is read whole

_BETWEEN = re.compile(r"[\s,\[\]]*")
_NEXT_OBJECT = re.compile(r"^[ \t,]*(?=\{)", re.MULTILINE)
_DECODER = json.JSONDecoder()

Numbered = tuple[int, Any]
"""A row's number and its value; ``Garbage`` if it is no JSON."""


class Garbage(str):
    """Text that is no JSON."""

    __slots__ = ()


def read_json(path: Path, folder: Path, wanted: Wanted, partitions: Mapping[str, str | None]) -> Table:
    """The rows of a JSON file. ``folder`` is for what has to be transcoded. Raises UnreadableFileError."""
    path, warnings = to_utf8(path, folder)
    values = _lines(path) if _has_an_object_a_line(path) else _document(path)
    sample = list(islice(values, SAMPLE_OBJECTS))
    objects = [plain(value)[0] for _, value in sample if isinstance(value, dict)]
    if not objects:
        raise UnreadableFileError(
            "nothing in it is a JSON object; .jsonl has one object per line, .json an array of them"
        )
    counts = Counter(name for value in objects for name in value)
    names = [name for name, count in counts.items() if 2 * count >= len(objects)]  # one odd line names no column
    places = find_places(names, wanted, partitions)
    return Table(frames_of(_rows(chain(sample, values), places)), warnings)


def _rows(values: Iterable[Numbered], places: Places) -> Iterator[Row]:
    text_name = places.names[places.text]
    label_name = places.names[places.label] if places.label is not None else None
    others = {places.names[at] for at in places.extra}
    for at, value in values:
        if not isinstance(value, dict):
            raw = value if isinstance(value, Garbage) else json.dumps(value, ensure_ascii=False)
            yield at, str(raw), None, "not_json", "it is not a JSON object", ""
            continue
        record, missing = plain(value)
        label = record.get(label_name) if label_name is not None else places.label_in_path
        extra = extra_json({name: record[name] for name in record if name in others and record[name] not in ([], {})})
        yield at, record.get(text_name), label, "label_missing" if missing else "", missing, extra


def _has_an_object_a_line(path: Path) -> bool:
    """Whether the first lines are objects, or an array's brackets and objects with commas behind them."""
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        some = (file.readline(LONGEST_TRIED_LINE) for _ in range(TRIED_LINES))
        lines = [bare for line in some if (bare := _bare(line))]
    if len(lines) == 1:  # a table, maybe, as one object
        return False
    return sum(isinstance(_parse(line), dict) for line in lines) * 2 > len(lines)


def _lines(path: Path) -> Iterator[Numbered]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for at, line in enumerate(file, start=1):
            if bare := _bare(line):
                yield at, _parse(bare)


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


def _document(path: Path) -> Iterator[Numbered]:
    """The objects of a file that is read whole, wherever its line ends are."""
    if path.stat().st_size > DOCUMENT_BYTES:
        raise UnreadableFileError(
            f"JSON of more than {DOCUMENT_BYTES >> 20} MiB needs one object per line (jq -c '.[]' makes that)"
        )
    values = list(_decoded(path.read_text(encoding="utf-8", errors="surrogateescape")))
    if len(values) == 1 and isinstance(values[0], dict):
        values = _unwrapped(values[0])
    return iter(list(enumerate(values, start=1)))


def _decoded(text: str) -> Iterator[Any]:
    at = _end_of(_BETWEEN, text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            line_end = text.find("\n", at)
            following = _NEXT_OBJECT.search(text, line_end + 1) if line_end >= 0 else None
            end = following.end() if following else len(text)
            value, at = Garbage(text[at:end].strip()), end
        yield value
        at = _end_of(_BETWEEN, text, at)


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _unwrapped(document: dict[str, Any]) -> list[Any]:
    """The rows of a document that is one object: a list in it, or a table by columns as pandas writes it."""
    names, data = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, names), row, strict=False)) for row in data]
    lists = [value for value in document.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if lists and "data" not in document.keys() - {"data"} and not isinstance(data, dict):
        return max(lists, key=len)
    columns = {
        name: list(value.values()) if isinstance(value, dict) else value
        for name, value in document.items()
        if isinstance(value, dict | list)
    }
    sizes = {len(column) for column in columns.values()}
    if len(columns) > 1 and len(columns) == len(document) and len(sizes) == 1 and sizes != {0}:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [document]
