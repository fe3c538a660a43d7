"""An S3 server for the laptop: moto's, made durable (SQLite), atomic (one lock) and able to fail on request.

``python -m dev.s3_server --port 9000 --data .local/stack/s3.sqlite [--faults FILE]``

moto keeps buckets in memory. Here every successful request is on disk before its answer leaves, so a ``kill -9`` loses
nothing, and a restart serves the same ETags and LastModified. Kept are buckets and each object's newest version:
content, ETag, time, storage class, checksum and metadata. Not kept: tags, ACLs, old versions, unfinished multi-part
uploads.

While the file named by ``--faults`` exists, every S3 request is answered ``503 SlowDown``: for tests of outages.
"""

import argparse
import ctypes
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from dev import s3_listing
from dev.s3_store import Store

PLAIN = ("", "x-id=GetObject", None)  # queries that ask for the newest version, whole


class Application:
    """moto's WSGI application behind one lock.

    moto checks a condition (``If-None-Match``, ``If-Match``) and acts on it in two steps, and two threads can meet in
    between. Its handlers only compute, under Python's own lock anyway, so one at a time costs nothing. Bodies are read
    before the lock is taken, and answers sent after it is released.
    """

    def __init__(self, store: Store, faults: Path | None) -> None:
        self.store, self.faults = store, faults
        s3_listing.replace_serializer()
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
            if (part := self._part(environ, start_response)) is not None:
                return part
            answer: Iterable[bytes] = self.moto(environ, start_response)
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS"):
                self._save()
        return answer

    def _part(self, environ: dict[str, Any], start_response: Any) -> list[bytes] | None:
        """A range of an object, read by itself: moto would read the whole object for each. None if it is none."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", environ.get("HTTP_RANGE", ""))
        key = self.store.get(*_place(_path(environ))) if wanted and environ["REQUEST_METHOD"] == "GET" else None
        if not wanted or not key or int(wanted[1]) >= key.size or environ.get("QUERY_STRING") not in PLAIN:
            return None
        first, last = int(wanted[1]), min(int(wanted[2] or key.size), key.size - 1)
        told: list[Any] = []
        whole = {name: value for name, value in environ.items() if name != "HTTP_RANGE"} | {"REQUEST_METHOD": "HEAD"}
        self.moto(whole, lambda status, headers, *_: told.extend((status, headers)))
        if not told[0].startswith("200") or last < first:
            return None
        key._value_buffer.seek(first)
        content = key._value_buffer.read(last - first + 1)
        replaced = {"content-length": str(len(content)), "content-range": f"bytes {first}-{last}/{key.size}"}
        # A checksum is the whole object's.
        kept = [one for one in told[1] if one[0].lower() not in replaced and "checksum" not in one[0].lower()]
        start_response("206 PARTIAL CONTENT", [*kept, *replaced.items()])
        return [content]

    def _copy_refused(self, environ: dict[str, Any]) -> bool:
        """moto does not know CopyObject's conditions on the source's ETag and on the target's absence."""
        source = environ.get("HTTP_X_AMZ_COPY_SOURCE")
        if not source or environ["REQUEST_METHOD"] != "PUT":
            return False
        wanted = environ.get("HTTP_X_AMZ_COPY_SOURCE_IF_MATCH")
        key = self.store.get(*_place(unquote(urlsplit(source).path)))
        if wanted and key and wanted.strip('"') != key.etag.strip('"'):
            return True
        return environ.get("HTTP_IF_NONE_MATCH") == "*" and self.store.get(*_place(_path(environ))) is not None

    def _save(self) -> None:
        """What cannot be kept must not be confirmed: the process ends, and a new one starts from what is on disk."""
        try:
            self.store.save()
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)


def _path(environ: dict[str, Any]) -> str:
    return str(environ["PATH_INFO"].encode("latin-1").decode())  # WSGI hands UTF-8 over as Latin-1


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


def _return_memory() -> None:
    """Gives every large block back to the system as soon as it is free: glibc would keep several objects' worth.

    Elsewhere there is no such function, and no need.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


def main() -> None:
    """Serves on 127.0.0.1 until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="SQLite file that keeps the buckets")
    parser.add_argument("--faults", type=Path, help="while this file exists, every request is answered 503 SlowDown")
    arguments = parser.parse_args()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit(0))
    _return_memory()
    application = Application(Store(arguments.data), arguments.faults)
    server = make_server("127.0.0.1", arguments.port, application, threaded=True, request_handler=_QuietHandler)
    server.serve_forever()


if __name__ == "__main__":
    main()
