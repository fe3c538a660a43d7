"""Rows of databases and APIs as lines of JSON in which every value is text: no later step guesses at a type."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple


def as_text(value: Any) -> str | None:
    """A value as text, the same whatever driver it came from; None stays None.

    Dates are ISO 8601, numbers keep all digits, bytes that are UTF-8 are that text, documents and lists are JSON, and
    MongoDB's ObjectId and Decimal128 are what they print.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping | list | tuple | set):
        return json.dumps(_plain(value), ensure_ascii=False)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float) else as_text(value)


class Written(NamedTuple):
    """What ``write_rows`` has written."""

    rows: int
    newest: Any  # the greatest value of the cursor
    left: int  # rows without one that can be compared: they would be fetched again and again, or never


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path, cursor: str = "") -> Written:
    """Writes rows as lines of JSON, but those that have nothing comparable in the field ``cursor``, if one is named.

    Raises ValueError if no row at all has one: the field is called otherwise.
    """
    count, newest, left = 0, None, 0
    # Half of a character, as an API that cuts texts hands out, is written as JSON can: the reader rejects that row.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            if cursor:
                try:
                    newest = _greater(newest, row.get(cursor))
                except TypeError:
                    left += 1
                    continue
            file.write(json.dumps({name: as_text(value) for name, value in row.items()}, ensure_ascii=False) + "\n")
            count += 1
    if left and not count:
        raise ValueError(f"none of {left} rows has a value in the cursor column {cursor!r}")
    return Written(count, newest, left)


def _greater(known: Any, value: Any) -> Any:
    """The greater of a cursor's values. Raises TypeError if the new one is none, or of another kind."""
    if value is None:
        raise TypeError("there is none")
    return value if known is None else max(known, value)


def dump_cursor(value: Any) -> Any:
    """A cursor's value as JSON that says its type; see ``load_cursor``."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return {type(value).__name__: str(value)}


def load_cursor(value: Any) -> Any:
    """A cursor's value as ``dump_cursor`` was given it."""
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    if kind == "ObjectId":
        from bson import ObjectId

        return ObjectId(text)
    known: dict[str, Callable[[str], Any]] = {
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "Decimal": Decimal,
        "float": float,
    }
    return known.get(kind, str)(text)
