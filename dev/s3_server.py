"""An S3 server for the laptop: moto's, made durable (SQLite), atomic (one lock) and able to fail on request.

``python -m dev.s3_server --port 9000 --data .local/stack/s3.sqlite [--faults FILE]``

moto keeps buckets in memory. Here every successful request is on disk before its answer leaves, so a ``kill -9`` loses
nothing, and a restart serves the same ETags and LastModified. Kept are buckets and each object's newest version:
content, ETag, time, storage class, checksum and metadata. Not kept: tags, ACLs, old versions, unfinished multi-part
uploads.

While the file named by ``--faults`` exists, every S3 request is answered ``503 SlowDown``: for tests of outages.
"""

import argparse
import io
import json
import os
import signal
import sqlite3
import sys
import threading
import traceback
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Path-style addressing only, whatever the Host header says; moto reads it while it is imported.
os.environ["S3_IGNORE_SUBDOMAIN_BUCKETNAME"] = "true"

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import FakeKey, S3Backend, s3_backends
from werkzeug.serving import make_server

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, region TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS contents (id INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, name TEXT NOT NULL, content_id INTEGER NOT NULL, size INTEGER NOT NULL,
    last_modified TEXT NOT NULL, attributes TEXT NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (bucket, name)
);
"""
_ATTRIBUTES = (
    *("_etag", "_storage_class", "website_redirect_location"),
    *("checksum_algorithm", "checksum_value", "checksum_type", "checksum_parts"),
)


class _Content:
    """The part of a file that moto uses, read from the database on demand: memory stays small, the start quick."""

    def __init__(self, database: sqlite3.Connection, row: int) -> None:
        self.database, self.row, self.position = database, row, 0

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, size: int = -1) -> bytes:
        with self.database.blobopen("contents", "content", self.row, readonly=True) as blob:
            blob.seek(self.position)
            data: bytes = blob.read() if size < 0 else blob.read(size)
        self.position += len(data)
        return data

    def close(self) -> None:
        """Nothing is held open."""


class Store:
    """moto's S3 backend and its copy in SQLite. Callers hold one lock around every method."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)
        self.backend: S3Backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self.saved: dict[tuple[str, str], FakeKey] = {}
        self.buckets: set[str] = set()
        self._load()

    def get(self, bucket: str, name: str) -> FakeKey | None:
        """The object of that name, if there is one."""
        found = self.backend.buckets.get(bucket)
        key = found.keys.get(name) if found else None
        return key if isinstance(key, FakeKey) else None

    def save(self) -> None:
        """Writes whatever the last request changed, in one transaction."""
        present = {
            (bucket.name, name): key
            for bucket in self.backend.buckets.values()
            for name, key in bucket.keys.items()
            if isinstance(key, FakeKey)
        }
        changed = [(place, key) for place, key in present.items() if self.saved.get(place) is not key]
        gone = [place for place in self.saved if place not in present]
        names = set(self.backend.buckets)
        if not changed and not gone and names == self.buckets:
            return
        self.database.execute("BEGIN IMMEDIATE")
        for place in gone:
            self._forget(place)
        contents = [(key, self._write(place, key)) for place, key in changed]
        self._save_buckets(names)
        self.database.execute("COMMIT")
        for key, row in contents:
            self._release(key, row)
        self.saved, self.buckets = present, names

    def _write(self, place: tuple[str, str], key: FakeKey) -> int:
        self._forget(place)
        attributes = {"_etag": key.etag.strip('"')} | {name: getattr(key, name, None) for name in _ATTRIBUTES[1:]}
        row = self.database.execute("INSERT INTO contents (content) VALUES (?)", (key.value,)).lastrowid
        self.database.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *place,
                row,
                key.size,
                key.last_modified.isoformat(),
                json.dumps(attributes),
                json.dumps(dict(key.metadata)),
            ),
        )
        return int(row or 0)

    def _release(self, key: FakeKey, row: int) -> None:
        """Lets go of the content in memory, and of a multi-part upload's parts, which moto keeps for ever."""
        if key.multipart:
            key.multipart.dispose()
            key.multipart = None
        key._value_buffer.close()
        key._value_buffer = _Content(self.database, row)

    def _forget(self, place: tuple[str, str]) -> None:
        where = "WHERE bucket = ? AND name = ?"
        self.database.execute(f"DELETE FROM contents WHERE id = (SELECT content_id FROM objects {where})", place)
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
        for bucket, name, row, size, modified, attributes, metadata in self.database.execute("SELECT * FROM objects"):
            key = self.backend.put_object(bucket, name, b"", disable_notification=True)
            vars(key).update(json.loads(attributes))
            key.set_metadata(json.loads(metadata))
            key.last_modified, key.contentsize = datetime.fromisoformat(modified), size
            self._release(key, row)
            self.saved[bucket, name] = key


class Application:
    """moto's WSGI application behind one lock.

    moto checks a condition (``If-None-Match``, ``If-Match``) and acts on it in two steps, and two threads can meet in
    between. Its handlers only compute, under Python's own lock anyway, so one at a time costs nothing. Bodies are read
    before the lock is taken, and answers sent after it is released.
    """

    def __init__(self, store: Store, faults: Path | None) -> None:
        self.store, self.faults = store, faults
        self.moto = create_backend_app("s3")
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """One request, as WSGI wants it."""
        terminated = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read(-1 if terminated else int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if self.faults and self.faults.exists():
            return _error(start_response, "503 Slow Down", "SlowDown")
        with self.lock:
            if self._copy_refused(environ):
                return _error(start_response, "412 Precondition Failed", "PreconditionFailed")
            answer: Iterable[bytes] = self.moto(environ, start_response)
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS"):
                self._save()
        return answer

    def _copy_refused(self, environ: dict[str, Any]) -> bool:
        """moto does not know CopyObject's conditions on the source's ETag and on the target's absence."""
        source = environ.get("HTTP_X_AMZ_COPY_SOURCE")
        if not source or environ["REQUEST_METHOD"] != "PUT":
            return False
        wanted = environ.get("HTTP_X_AMZ_COPY_SOURCE_IF_MATCH")
        key = self.store.get(*_place(unquote(urlsplit(source).path)))
        if wanted and key and wanted.strip('"') != key.etag.strip('"'):
            return True
        target = environ["PATH_INFO"].encode("latin-1").decode()  # WSGI hands UTF-8 over as Latin-1
        return environ.get("HTTP_IF_NONE_MATCH") == "*" and self.store.get(*_place(target)) is not None

    def _save(self) -> None:
        """What cannot be kept must not be confirmed: the process ends, and a new one starts from what is on disk."""
        try:
            self.store.save()
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)


def _place(path: str) -> tuple[str, str]:
    bucket, _, name = path.lstrip("/").partition("/")
    return bucket, name


def _error(start_response: Any, status: str, code: str) -> Iterable[bytes]:
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{status}</Message></Error>"
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body.encode()]


class _QuietHandler(MotoRequestHandler):  # type: ignore[misc]  # moto is untyped here
    """Logs errors only: sensors ask every second."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code)[:1] == "5":
            super().log_request(code, size)


def main() -> None:
    """Serves on 127.0.0.1 until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="SQLite file that keeps the buckets")
    parser.add_argument("--faults", type=Path, help="while this file exists, every request is answered 503 SlowDown")
    arguments = parser.parse_args()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit(0))
    application = Application(Store(arguments.data), arguments.faults)
    server = make_server("127.0.0.1", arguments.port, application, threaded=True, request_handler=_QuietHandler)
    server.serve_forever()


if __name__ == "__main__":
    main()
