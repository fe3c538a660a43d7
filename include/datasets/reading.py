"""Reads an uploaded file into rows, whatever is in it: what cannot be read is a row with a rule and a reason."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

TEXT_COLUMNS = (
    "text", "sentence", "content", "message", "utterance", "query", "question", "review", "comment", "body",
    "description", "title",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "category", "class", "target", "intent", "sentiment", "topic", "tag")

COLUMNS = ["file", "row", "text", "label", "rule", "reason"]

# What people upload by mistake, by its first bytes.
_MAGIC = {
    b"%PDF": "a PDF", b"PK\x03\x04": "a zip archive or an Excel workbook", b"\x1f\x8b": "gzip-compressed",
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"PAR1": "a Parquet file",
}  # fmt: skip

csv.field_size_limit(sys.maxsize)  # a 1 MB cell is a row to reject, not a file to lose


class UnreadableFileError(ValueError):
    """The file as a whole is no table of labelled texts; the message says why and what to do."""


def read_rows(content: bytes, name: str, text_column: str = "", label_column: str = "") -> pd.DataFrame:
    """The rows of a .csv, .jsonl or .parquet file.

    Returns a frame with the columns ``COLUMNS``, one line per row of the file in its order: ``row`` counts from 1 (a
    CSV file's header is not counted), ``text`` and ``label`` are strings or None, ``rule`` and ``reason`` are empty
    unless the row itself could not be read. Without column names the text and the label are found by the usual names.
    Raises UnreadableFileError if the file is no table of labelled texts.
    """
    if not content:
        raise UnreadableFileError("the file is empty")
    suffix = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    readers = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
    if suffix not in readers:
        raise UnreadableFileError(f"only .csv, .jsonl and .parquet files are read, and this one ends in {suffix!r}")
    for magic, kind in _MAGIC.items():
        if content.startswith(magic) and not (suffix == "parquet" and magic == b"PAR1"):
            raise UnreadableFileError(f"the name ends in .{suffix}, but the content is {kind}")
    rows = readers[suffix](content, text_column, label_column)
    if not rows:
        raise UnreadableFileError("the file has no rows")
    # Objects: pandas would make numbers of some labels, and lose digits of long ones.
    frame = pd.DataFrame(rows, columns=COLUMNS[1:], dtype=object).astype({"row": int})
    frame.insert(0, "file", name)
    return frame


Row = tuple[int, Any, Any, str, str]


def _read_csv(content: bytes, text_column: str, label_column: str) -> list[Row]:
    text = _decode(content)
    # Strict: a quote that is missing somewhere merges rows, and better no file than half a file.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        text_at, label_at = _columns(header, text_column, label_column)
        return [_csv_row(at, cells, header, text_at, label_at) for at, cells in enumerate(_filled(reader), start=1)]
    except csv.Error as error:
        problem = "a quoted cell is still open at the end" if "end of data" in str(error) else str(error)
        raise UnreadableFileError(
            f"line {reader.line_num}: {problem}; a quote is missing or, inside a quoted cell, not doubled"
        ) from error
    except StopIteration:
        raise UnreadableFileError("the file has no header") from None


def _filled(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows without the blank lines between them."""
    return (cells for cells in reader if cells)


def _csv_row(at: int, cells: list[str], header: list[str], text_at: int, label_at: int) -> Row:
    if len(cells) != len(header):
        reason = f"{len(cells)} cells where the header has {len(header)}; a comma or quote in a text needs quoting"
        return at, ",".join(cells), None, "wrong_column_count", reason
    return at, cells[text_at], cells[label_at], "", ""


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return max((",", ";", "\t"), key=header.count)


def _read_jsonl(content: bytes, text_column: str, label_column: str) -> list[Row]:
    lines = _decode(content).split("\n")
    parsed = [(at, line, _parse(line)) for at, line in enumerate(lines, start=1) if line.strip()]
    objects = [value for _, _, value in parsed if isinstance(value, dict)]
    if not objects:
        raise UnreadableFileError("no line is a JSON object; .jsonl has one object per line")
    counts = Counter(name for value in objects for name in value)
    names = [name for name, count in counts.items() if 2 * count >= len(objects)]  # one odd line names no column
    text_at, label_at = (names[i] for i in _columns(names, text_column, label_column))
    return [
        (at, value.get(text_at), value.get(label_at), "", "")
        if isinstance(value, dict)
        else (at, line, None, "not_json", "the line is not a JSON object")
        for at, line, value in parsed
    ]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # ValueError: no JSON, or a number of more digits than Python reads
        return None


def _read_parquet(content: bytes, text_column: str, label_column: str) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"the file is not Parquet: {error}") from error
    columns = _columns(table.column_names, text_column, label_column)
    texts, labels = ([_text_of(value) for value in table.column(at)] for at in columns)
    return [(at, text, label, "", "") for at, (text, label) in enumerate(zip(texts, labels, strict=True), start=1)]


def _text_of(scalar: Any) -> Any:
    """A Parquet value; what is not valid UTF-8 keeps its bytes as surrogates, for its row to be rejected."""
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        value = scalar.as_buffer().to_pybytes()
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _decode(content: bytes) -> str:
    """UTF-8, with or without a byte order mark, or UTF-16 with one; bytes that are neither stay, as surrogates."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if content.count(b"\x00") > len(content) // 100:
        raise UnreadableFileError("the content is binary, not text")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _columns(names: list[str], text_column: str, label_column: str) -> tuple[int, int]:
    """Where the text and the label stand."""
    text_at = _column(names, text_column, TEXT_COLUMNS, "text", "BERT_TEXT_COLUMN")
    label_at = _column(names, label_column, LABEL_COLUMNS, "label", "BERT_LABEL_COLUMN")
    return text_at, label_at


def _column(names: list[str], wanted: str, usual: tuple[str, ...], what: str, setting: str) -> int:
    shown = ", ".join(repr(name[:40]) for name in names[:12]) or "no columns at all"
    if wanted:
        if wanted not in names:
            raise UnreadableFileError(f"{setting} names the column {wanted!r}, but the columns are {shown}")
        return names.index(wanted)
    lowered = [name.strip().lower() for name in names]
    for name in usual:
        if name in lowered:
            return lowered.index(name)
    raise UnreadableFileError(
        f"no {what} column among {shown}; call it one of {', '.join(usual[:4])} …, or name it in {setting}"
    )
