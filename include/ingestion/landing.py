"""What was fetched: whole files in ``raw/<source>/<week>/``, and a record of each, by which nothing is fetched twice.

A file is what its *mark* says: its name, and whatever its server tells contents apart by. Its record,
``raw/<source>/<week>/_landed/<mark>.json``, is written last and says that it is there: a file without one, left by a
task that was killed, is overwritten by the next and read by nobody.
"""

import hashlib
import json
import posixpath
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from include import lake, objects

RECORDS = "_landed"


class Remote(NamedTuple):
    """A file as its server lists it; what a server does not say is None or empty."""

    name: str  # below the source's folder
    where: str  # without credentials
    size: int | None = None
    modified: datetime | None = None
    etag: str = ""

    @property
    def mark(self) -> str:
        """What tells this content of this name from any other; empty if the server says nothing that would."""
        if self.etag:
            return _digest(self.name, self.etag)
        if self.modified is None and self.size is None:
            return ""
        return _digest(self.name, str(self.size), self.modified.isoformat() if self.modified else "")


class Landed(BaseModel):
    """A file that was fetched whole: where from, when, and where it lies."""

    model_config = ConfigDict(frozen=True)

    source: str
    week: str
    name: str
    uri: str
    where: str
    size: int
    sha256: str
    mark: str
    modified: datetime | None = None
    etag: str = ""
    landed_at: datetime
    seen_at: datetime  # what "newest" goes by: when it was changed; where nobody knows that, the end of its week
    attempts: int = 1
    cursor: Any = None  # of row sources: the greatest value in it
    cursor_column: str = ""
    warnings: tuple[str, ...] = ()


def week_of(until: datetime) -> str:
    """The ISO week that ends at or contains a moment just before ``until``: ``2026-W47``."""
    year, week, _ = (until.astimezone(UTC) - timedelta(microseconds=1)).isocalendar()
    return f"{year}-W{week:02}"


def seen_marks(source: str) -> set[str]:
    """The marks of all that was ever landed of a source."""
    return {uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in _records(lake.raw(source))}


def landed(source: str, week: str) -> list[Landed]:
    """What a week has of a source, in order of name and time."""
    found = [Landed.model_validate_json(objects.read_bytes(uri)) for uri in _records(lake.raw(source, week))]
    return sorted(found, key=lambda one: (one.name, one.seen_at, one.mark))


def last_cursor(source: str, column: str) -> Any:
    """The greatest cursor value of what was landed last; None if there is none, or if it was another column's."""
    weeks = sorted({uri.removeprefix(lake.raw(source)).split("/")[0] for uri in _records(lake.raw(source))})
    for week in reversed(weeks):
        # Records of before columns were kept say nothing of it.
        known = [one for one in landed(source, week) if one.cursor is not None and one.cursor_column in ("", column)]
        if known:
            return max(known, key=lambda one: one.landed_at).cursor
    return None


def is_wanted(remote: Remote, marks: set[str], until: datetime, settled_seconds: float) -> bool:
    """Whether a file is new, belongs to the time before ``until``, and does not seem to be written still."""
    if remote.mark and remote.mark in marks:
        return False
    return remote.modified is None or remote.modified <= min(
        until, datetime.now(UTC) - timedelta(seconds=settled_seconds)
    )


def land(
    source: str,
    week: str,
    remote: Remote,
    path: Path,
    *,
    until: datetime,
    marks: set[str],
    attempts: int = 1,
    ending: str = "",
    cursor: Any = None,
    cursor_column: str = "",
    warnings: tuple[str, ...] = (),
) -> Landed | None:
    """Lands a file that was fetched whole; None if just this content of this name has landed before.

    ``ending`` is put behind a name that does not say what the file is. Another content of the same name lands beside
    the first, under a name of its own.
    """
    sha256 = _sha256(path)
    mark = remote.mark or _digest(remote.name, sha256)
    if mark in marks:
        return None
    name = _safe(_printable(remote.name))  # bytes that are no UTF-8 would be no key
    name = name if not ending or name.endswith(f".{ending}") else f"{name}.{ending}"
    uri = lake.raw(source, week, lake.plain(name))
    if objects.exists(uri) and (taken := _taken_by(source, week, uri)) and taken != mark:
        stem, dot, end = posixpath.basename(name).partition(".")
        folder = posixpath.dirname(name)
        uri = lake.raw(source, week, lake.plain(posixpath.join(folder, f"{stem}-{mark[:8]}{dot}{end}")))
    objects.upload_file(path, uri)
    record = Landed(
        source=source, week=week, name=name, uri=uri, where=_printable(remote.where), size=path.stat().st_size,
        sha256=sha256, mark=mark, modified=remote.modified, etag=remote.etag, landed_at=datetime.now(UTC),
        seen_at=remote.modified or until, attempts=attempts, cursor=cursor, cursor_column=cursor_column,
        warnings=warnings,
    )  # fmt: skip
    content = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
    objects.write_bytes(lake.raw(source, week, f"{RECORDS}/{mark}.json"), content.encode())
    marks.add(mark)
    return record


def _taken_by(source: str, week: str, uri: str) -> str:
    return next((one.mark for one in landed(source, week) if one.uri == uri), "")


def _records(folder: str) -> list[str]:
    return [uri for uri in objects.find(folder) if f"/{RECORDS}/" in uri]


def _safe(name: str) -> str:
    """A server's name as one that stays below the week's folder and is not taken for a record."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return "/".join(f"{part}-" if part == RECORDS else part for part in parts)


def _printable(name: str) -> str:
    """A name with bytes that are no UTF-8 as one that can be written."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
