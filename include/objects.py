"""What is done with objects in S3: read, write, create once, list, copy. ``include.lake`` says where they lie.

Every URI is a full one (``s3://bucket/…``). fsspec does the I/O, so ``file://`` works too.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

CREATE_ATTEMPTS = 6
S3_OPTIONS: dict[str, Any] = {
    "use_listings_cache": False,
    # Requests are signed so anyway; addresses only if it is said, and newer regions of AWS refuse others.
    "config_kwargs": {"signature_version": "s3v4"},
    # s3fs would hold ten pieces of 50 MB of each large file; and it asks for a file's size before it reads it so.
    "max_concurrency": 1,
    "default_block_size": 8 << 20,
}


def filesystem(uri: str) -> fsspec.AbstractFileSystem:
    """The fsspec file system of a URI; listings are never cached, since other tasks write too."""
    protocol = uri.split("://", 1)[0] if "://" in uri else "file"
    known: dict[str, dict[str, Any]] = {"file": {"auto_mkdir": True}, "s3": S3_OPTIONS}
    return fsspec.filesystem(protocol, **known.get(protocol, {"use_listings_cache": False}))


def exists(uri: str) -> bool:
    """Whether an object lies there."""
    return bool(filesystem(uri).isfile(uri))


def read_bytes(uri: str) -> bytes:
    """An object's content. Raises FileNotFoundError with the URI."""
    try:
        content: bytes = filesystem(uri).cat_file(uri)
    except FileNotFoundError:
        raise FileNotFoundError(uri) from None
    return content


def write_bytes(uri: str, content: bytes) -> str:
    """Writes an object whole, replacing what was there; returns its URI."""
    filesystem(uri).pipe_file(uri, content)
    return uri


def create_bytes(uri: str, content: bytes) -> bool:
    """Writes an object only if none is there (If-None-Match: *); False if there was another.

    True says that what lies there is this content. An answer may get lost after the object was written: the client's
    own retry then meets the object (412), or the caller gets an error. So what lies there is compared, and content
    that only one caller may write has to differ from the others'. Two at once (409) is tried again.
    """
    for attempt in range(CREATE_ATTEMPTS):
        try:
            filesystem(uri).pipe_file(uri, content, mode="create")
        except Exception as error:
            lies_there = _content(uri)
            if lies_there is not None:
                return lies_there == content
            if not _is_conflict(error) or attempt == CREATE_ATTEMPTS - 1:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return True
    raise AssertionError("unreachable")


def _content(uri: str) -> bytes | None:
    """An object's content; None if there is none, or if that cannot be told."""
    try:
        return read_bytes(uri)
    except Exception:
        return None


def _is_conflict(error: Exception) -> bool:
    """Whether S3 says that somebody else changed the object just now, and it is gone again (409, 412)."""
    codes = ("ConditionalRequestConflict", "OperationAborted", "PreconditionFailed", "409", "412")
    return isinstance(error, FileExistsError) or _error_code(error) in codes


def _error_code(error: BaseException) -> str:
    """S3's own code for an error that s3fs has translated; empty if there is none."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def etag(uri: str) -> str | None:
    """What an object's content is told by; None if there is no object."""
    try:
        info = filesystem(uri).info(uri)
    except FileNotFoundError:
        return None
    return str(info.get("ETag", "")).strip('"') if info["type"] == "file" else None


def delete(uri: str, etag: str = "") -> bool:
    """Deletes an object, with an ``etag`` only if it is still that one; False if it is another, or gone."""
    files = filesystem(uri)
    if not uri.startswith("s3://"):
        if found := files.isfile(uri):
            files.rm_file(uri)
        return bool(found)
    bucket, key = place(uri)
    try:
        files.call_s3("delete_object", Bucket=bucket, Key=key, **({"IfMatch": f'"{etag}"'} if etag else {}))
    except OSError as error:
        if isinstance(error, FileNotFoundError) or _error_code(error) in ("PreconditionFailed", "412", "404"):
            return False
        raise
    return True


def place(uri: str) -> tuple[str, str]:
    """The bucket and the key of an ``s3://`` URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read_json(uri: str) -> dict[str, Any]:
    """A JSON object's content."""
    try:
        content: dict[str, Any] = json.loads(read_bytes(uri))
    except json.JSONDecodeError as error:
        raise ValueError(f"{uri} is not JSON: {error}") from error
    return content


def write_json(uri: str, content: dict[str, Any]) -> str:
    """Writes a JSON object; returns its URI."""
    return write_bytes(uri, _json(content))


def create_json(uri: str, content: dict[str, Any]) -> bool:
    """Writes a JSON object only if none is there; False if there was one."""
    return create_bytes(uri, _json(content))


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str).encode()


def find(uri: str) -> list[str]:
    """The URIs of all objects below a folder, sorted."""
    files = filesystem(uri)
    return sorted(files.unstrip_protocol(path) for path in files.find(uri))


class Stored(NamedTuple):
    """An object as a listing shows it."""

    uri: str
    etag: str
    modified: datetime


def listing(uri: str) -> list[Stored]:
    """All objects below a folder with when they were written, sorted."""
    files = filesystem(uri)
    found = files.find(uri, detail=True)
    return [
        Stored(files.unstrip_protocol(path), str(info.get("ETag", "")).strip('"'), _modified(info))
        for path, info in sorted(found.items())
        if info["type"] == "file"
    ]


def _modified(info: dict[str, Any]) -> datetime:
    known = info.get("LastModified")
    return known if isinstance(known, datetime) else datetime.fromtimestamp(info["mtime"], UTC)


def upload(folder: Path, uri: str) -> str:
    """Copies a folder's files below a URI; returns the URI."""
    files = filesystem(uri)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.put_file(str(path), f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}")
    return uri


class UnsafeKeyError(ValueError):
    """An object's key that would be written outside of the folder that it is downloaded to."""


def download(uri: str, folder: Path) -> Path:
    """Copies all objects below a URI into a folder.

    Raises FileNotFoundError if there are none, and UnsafeKeyError, before anything is written, if one would leave it.
    """
    files = filesystem(uri)
    base = files._strip_protocol(uri).rstrip("/")
    paths = files.find(uri)
    if not paths:
        raise FileNotFoundError(f"nothing below {uri}")
    targets = {path: folder / _inside(path[len(base) :].lstrip("/"), uri) for path in paths}
    for path, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(target))
    return folder


def _inside(key: str, uri: str) -> str:
    """A key below a URI as the path of a file, if it stays below the folder it is written to."""
    if ".." in key.split("/"):
        raise UnsafeKeyError(f"below {uri} lies {key!r}, which would leave its folder: nothing of it was downloaded")
    return key


def upload_file(path: Path, uri: str) -> str:
    """Copies a local file to a URI, replacing what was there; returns the URI."""
    filesystem(uri).put_file(str(path), uri)
    return uri


def download_file(uri: str, path: Path) -> Path:
    """Copies an object to a local file. Raises FileNotFoundError with the URI."""
    if not exists(uri):
        raise FileNotFoundError(uri)
    filesystem(uri).get_file(uri, str(path))
    return path


def copy(source: str, target: str) -> str:
    """Copies all objects below one URI to another inside the lake; returns the target."""
    files = filesystem(source)
    base = files._strip_protocol(source).rstrip("/")
    for path in files.find(source):
        files.cp_file(path, f"{files._strip_protocol(target).rstrip('/')}/{path[len(base) :].lstrip('/')}")
    return target


@contextmanager
def local(uri: str) -> Iterator[Path]:
    """A folder's files on the local disk for as long as the block runs; a local folder is used as it is."""
    if "://" not in uri:
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield download(uri, Path(folder))
