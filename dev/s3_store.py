"""moto's S3 backend with a copy in SQLite that is never behind. No request costs more with what else is stored."""

import json
import os
import sqlite3
import uuid
from bisect import bisect_left, insort
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

# Path-style addressing only, whatever the Host header says; moto reads it while it is imported.
os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "true"

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends
from moto.s3.utils import _VersionedKeyStore

_SETTINGS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=67108864;"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, region TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pieces (id INTEGER PRIMARY KEY, content TEXT NOT NULL, bytes BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS pieces_of_a_content ON pieces (content);
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, size INTEGER NOT NULL,
    last_modified TEXT NOT NULL, attributes TEXT NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (bucket, name)
);
"""
_PIECE = 1 << 26  # SQLite's values end at 1 GB, and an optimizer's state may be larger
_ATTRIBUTES = (
    *("_etag", "_storage_class", "website_redirect_location"),
    *("checksum_algorithm", "checksum_value", "checksum_type", "checksum_parts"),
)


class _Content:
    """The part of a file that moto uses, read from the database on demand: memory stays small, the start quick."""

    def __init__(self, database: sqlite3.Connection, content: str, size: int) -> None:
        self.database, self.size, self.position = database, size, 0
        rows = database.execute("SELECT id FROM pieces WHERE content = ? ORDER BY id", (content,))
        self.rows = [int(row) for (row,) in rows]

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.position + size, self.size)
        pieces = []
        while self.position < end:
            number, offset = divmod(self.position, _PIECE)
            with self.database.blobopen("pieces", "bytes", self.rows[number], readonly=True) as blob:
                blob.seek(offset)
                pieces.append(blob.read(min(end - self.position, _PIECE - offset)))
            self.position += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Nothing is held open."""


class _Keys(_VersionedKeyStore):  # type: ignore[misc]  # moto is untyped here
    """A bucket's objects in the order of their names, and which of them have changed since they were last saved.

    moto's own looks at every name for each listing. While ``prefix`` is set, only names that begin with it are seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.changed: set[str] = set()
        self.prefix = ""

    def __setitem__(self, name: str, value: Any) -> None:
        self._note(name)
        super().__setitem__(name, value)

    def setlist(self, name: str, versions: Any) -> None:
        """All versions of an object."""
        self._note(name)
        super().setlist(name, versions)

    def pop(self, name: str) -> None:
        """Forgets an object with all its versions."""
        super().pop(name)
        self.changed.add(name)
        del self.names[bisect_left(self.names, name)]

    def _note(self, name: str) -> None:
        if name not in self:
            insort(self.names, name)
        self.changed.add(name)

    def _self_iterable(self) -> dict[str, Any]:
        return {name: self.__sgetitem__(name) for name in self._seen()}

    def _seen(self) -> Iterator[str]:
        for at in range(bisect_left(self.names, self.prefix), len(self.names)):
            if not self.names[at].startswith(self.prefix):
                return
            yield self.names[at]


class Store:
    """moto's S3 backend and its copy in SQLite. Callers hold one lock around every method."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.database.executescript(_SETTINGS + _SCHEMA)
        self.backend: S3Backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self.saved: dict[tuple[str, str], FakeKey] = {}
        self.buckets: set[str] = set()
        self._list_objects = self.backend.list_objects
        self.backend.list_objects = self._list
        self._load()

    def get(self, bucket: str, name: str) -> FakeKey | None:
        """The object of that name, if there is one."""
        found = self.backend.buckets.get(bucket)
        key = found.keys.get(name) if found else None
        return key if isinstance(key, FakeKey) else None

    def save(self) -> None:
        """Writes whatever the last request changed, in one transaction."""
        names = set(self.backend.buckets)
        places = [place for place in self.saved if place[0] not in names] if self.buckets - names else []
        for bucket in self.backend.buckets.values():
            keys = _ordered(bucket)
            places += [(bucket.name, name) for name in keys.changed]
            keys.changed = set()
        now = {place: self.get(*place) for place in places}
        changed = {place: key for place, key in now.items() if key and self.saved.get(place) is not key}
        gone = [place for place, key in now.items() if key is None and place in self.saved]
        if not changed and not gone and names == self.buckets:
            return
        self.database.execute("BEGIN IMMEDIATE")
        for place in gone:
            self._forget(place)
        written = [(key, self._write(place, key)) for place, key in changed.items()]
        self._save_buckets(names)
        self.database.execute("COMMIT")
        for key, content in written:
            self._release(key, content)
        for place in gone:
            del self.saved[place]
        self.saved.update(changed)
        self.buckets = names

    def _list(self, bucket: FakeBucket, prefix: str | None, *others: Any, **named: Any) -> Any:
        """moto's listing of a bucket, which then sees only the names that may be wanted."""
        keys = _ordered(bucket)
        keys.prefix = prefix or ""
        try:
            return self._list_objects(bucket, prefix, *others, **named)
        finally:
            keys.prefix = ""

    def _write(self, place: tuple[str, str], key: FakeKey) -> str:
        self._forget(place)
        if key.multipart:
            # The checksum of its parts' checksums. moto gives it to copies as if it were the content's own, and clients
            # then refuse the copy as damaged.
            key.checksum_algorithm = key.checksum_value = None
        content = self._write_content(key)
        attributes = {"_etag": key.etag.strip('"')} | {name: getattr(key, name, None) for name in _ATTRIBUTES[1:]}
        described = json.dumps(attributes), json.dumps(dict(key.metadata))
        row = (*place, content, key.size, key.last_modified.isoformat(), *described)
        self.database.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return content

    def _write_content(self, key: FakeKey) -> str:
        content = uuid.uuid4().hex
        key._value_buffer.seek(0)
        while piece := key._value_buffer.read(_PIECE):
            # Not as a parameter: it would be copied, and the copy kept with the prepared statement.
            sql = "INSERT INTO pieces (content, bytes) VALUES (?, zeroblob(?))"
            row = self.database.execute(sql, (content, len(piece))).lastrowid
            with self.database.blobopen("pieces", "bytes", int(row or 0)) as blob:
                blob.write(piece)
        return content

    def _release(self, key: FakeKey, content: str) -> None:
        """Lets go of the content in memory, and of a multi-part upload's parts, which moto keeps for ever."""
        if key.multipart:
            key.multipart.dispose()
            key.multipart = None
        key._value_buffer.close()
        key._value_buffer = _Content(self.database, content, key.size)

    def _forget(self, place: tuple[str, str]) -> None:
        where = "WHERE bucket = ? AND name = ?"
        self.database.execute(f"DELETE FROM pieces WHERE content = (SELECT content FROM objects {where})", place)
        self.database.execute(f"DELETE FROM objects {where}", place)

    def _save_buckets(self, names: set[str]) -> None:
        self.database.executemany("DELETE FROM buckets WHERE name = ?", [(name,) for name in self.buckets - names])
        new = [self.backend.buckets[name] for name in sorted(names - self.buckets)]
        rows = [(bucket.name, bucket.region_name, bucket.creation_date.isoformat()) for bucket in new]
        self.database.executemany("INSERT INTO buckets VALUES (?, ?, ?)", rows)

    def _load(self) -> None:
        for name, region, created in self.database.execute("SELECT name, region, created FROM buckets"):
            self.backend.create_bucket(name, region).creation_date = datetime.fromisoformat(created)
            self.buckets.add(name)
        rows = self.database.execute("SELECT * FROM objects").fetchall()
        for bucket, name, content, size, modified, attributes, metadata in rows:
            key = self.backend.put_object(bucket, name, b"", disable_notification=True)
            vars(key).update(json.loads(attributes))
            key.set_metadata(json.loads(metadata))
            key.last_modified, key.contentsize = datetime.fromisoformat(modified), size
            self._release(key, content)
            self.saved[bucket, name] = key


def _ordered(bucket: FakeBucket) -> _Keys:
    """A bucket's objects in order; a bucket that moto has just made gets them."""
    if not isinstance(bucket.keys, _Keys):
        keys = _Keys()
        for name, versions in bucket.keys.lists():
            keys.setlist(name, versions)
        bucket.keys = keys
    return bucket.keys
