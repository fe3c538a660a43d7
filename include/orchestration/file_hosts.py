"""Files on other machines, through Airflow's connections: what is there, and how each is fetched whole."""
# Only imported inside tasks.

import ftplib
import logging
import posixpath
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from airflow.exceptions import AirflowException
from airflow.hooks.base import BaseHook
from airflow.models import Connection

from include.datasets.names import has_unfinished_name, is_debris
from include.ingestion.landing import Remote
from include.ingestion.sources import S3, Folder, Ftp, Http, Rest, Sftp

logger = logging.getLogger(__name__)

SIDECARS = (".sha256", ".md5")
HEAD_SECONDS = (20, 60)
REFUSED_HEAD = (403, 405, 501)
CHUNK_BYTES = 1 << 20
SILENT_SECONDS = 60

Fetch = Callable[[Remote, Path], int]
"""Fetches a file to a path, going on from what lies there; returns in how many attempts."""


def is_data(name: str, pattern: str) -> bool:
    """Whether a file is data that a pattern names, and not one that is being written or was left by a program."""
    base = posixpath.basename(name)
    if "/" in pattern:  # to a shell, **/ may be no folder at all
        wanted = any(fnmatchcase(name, one) for one in (pattern, pattern.replace("**/", "")))
    else:
        wanted = fnmatchcase(base, pattern)
    return wanted and not has_unfinished_name(name) and not is_debris(name) and not base.endswith(SIDECARS)


def connection(conn_id: str) -> Connection:
    """An Airflow connection. Raises AirflowNotFoundException with its id."""
    return BaseHook.get_connection(conn_id)


# FTP


@contextmanager
def ftp_client(source: Ftp) -> Iterator[ftplib.FTP]:
    """A connection to an FTP server, with TLS on both channels where the source says so."""
    from airflow.providers.ftp.hooks.ftp import FTPHook, FTPSHook

    hook = (FTPSHook if source.kind == "ftps" else FTPHook)(source.connection)
    client = hook.get_conn()
    client.encoding = "latin-1"  # any byte: one name that is no UTF-8 must not keep the others from being listed
    client.timeout = SILENT_SECONDS
    client.sock.settimeout(SILENT_SECONDS)  # the hook sets none, and a dead server would hold the worker for ever
    try:
        yield client
    finally:
        client.close()


def list_ftp(client: ftplib.FTP, source: Ftp) -> list[Remote]:
    """All files below the source's folder; of a server without MLSD those in it, with what SIZE and MDTM say."""
    where = f"{source.kind}://{client.host}"
    folder = _sent(source.path)
    try:
        return list(_walk_mlsd(client, folder, "", where, deep="/" in source.pattern))
    except ftplib.error_perm as error:
        if not str(error).startswith(("500", "501", "502", "504")):
            raise AirflowException(f"source {source.name!r}: {where}{source.path}: {error}") from error
    try:
        client.cwd(folder)
    except ftplib.error_perm as error:
        raise AirflowException(f"source {source.name!r}: {where}{source.path}: {error}") from error
    try:
        names = client.nlst()
    except ftplib.error_perm as error:  # how some servers say that a folder is empty
        if not str(error).startswith("550"):
            raise
        names = []
    client.voidcmd("TYPE I")  # SIZE is refused in the listing's ASCII mode
    found = (_ftp_facts(client, folder, name, where) for name in sorted(map(posixpath.basename, names)))
    return [one for one in found if one is not None]


def _walk_mlsd(client: ftplib.FTP, folder: str, below: str, where: str, *, deep: bool) -> Iterator[Remote]:
    for name, facts in sorted(client.mlsd(posixpath.join(folder, below), ["type", "size", "modify"])):
        kind, path = facts.get("type", "file").lower(), posixpath.join(below, name)
        if kind == "file":
            size = int(facts["size"]) if "size" in facts else None
            modified = _ftp_time(facts["modify"]) if "modify" in facts else None
            yield _of_ftp(path, folder, where, size, modified)
        elif kind == "dir" and deep:
            yield from _walk_mlsd(client, folder, path, where, deep=deep)


def _ftp_facts(client: ftplib.FTP, folder: str, name: str, where: str) -> Remote | None:
    """What a server says of a name; None if that is a folder."""
    size = modified = None
    try:
        size = client.size(name)
        modified = _ftp_time(client.sendcmd(f"MDTM {name}").split()[1])
    except ftplib.error_perm as error:
        if size is None and str(error).startswith("550"):
            return None  # else it does not know the command
    return _of_ftp(name, folder, where, size, modified)


def _of_ftp(name: str, folder: str, where: str, size: int | None, modified: datetime | None) -> Remote:
    name, folder = (one.encode("latin-1").decode("utf-8", "surrogateescape") for one in (name, folder))
    return Remote(name, f"{where}{posixpath.join('/', folder, name)}", size, modified)


def _sent(name: str) -> str:
    """A name as an FTP client that sends Latin-1 has to have it, to send UTF-8."""
    return name.encode().decode("latin-1")


def _ftp_time(text: str) -> datetime:
    return datetime.strptime(text.split(".")[0], "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def ftp_url(source: Ftp, name: str) -> str:
    """A file's address as curl wants it; a path that begins with / begins at the server's root."""
    conn = connection(source.connection)
    path = quote(posixpath.join(source.path, name).lstrip("/"), errors="surrogateescape")
    root = "%2F" if source.path.startswith("/") else ""
    return f"ftp://{conn.host}:{conn.port or ftplib.FTP_PORT}/{root}{path}"


# HTTP


def base_url(conn: Connection) -> str:
    """A connection's address, as Airflow's HttpHook reads it."""
    host = conn.host or ""
    url = host if "://" in host else f"{conn.schema or 'http'}://{host}"
    if urlsplit(url).username is not None:  # it would be kept with each file
        raise AirflowException(f"connection {conn.conn_id!r}: move login and password out of its host")
    return f"{url.rstrip('/')}:{conn.port}" if conn.port else url.rstrip("/")


class _Session(requests.Session):
    """What proves who it is goes to no other host that it is sent on to: requests sees to that for Authorization."""

    proofs: tuple[str, ...] = ()

    def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
        """What requests asks for before it follows."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]
            for name in self.proofs:
                prepared_request.headers.pop(name, None)


def session(source: Http | Rest) -> requests.Session:
    """A session that proves who it is as the source says, and tries again what a busy server refuses."""
    from urllib3.util import Retry

    conn, made = connection(source.connection), _Session()
    if source.auth == "basic":
        made.auth = (conn.login or "", conn.password or "")
    if source.auth == "bearer":
        made.headers["Authorization"] = f"Bearer {conn.password}"
    if source.auth == "header":
        made.headers.update(headers_of(conn))
        made.proofs = tuple(headers_of(conn))
    tries = Retry(total=source.attempts, backoff_factor=1, status_forcelist=[429, 500, 502, 503, 504])
    for scheme in ("http://", "https://"):
        made.mount(scheme, requests.adapters.HTTPAdapter(max_retries=tries))
    made.verify = conn.extra_dejson.get("verify", True)
    return made


def headers_of(conn: Connection) -> dict[str, str]:
    """The headers in a connection's extra: ``{"headers": {"X-Api-Key": "…"}}``."""
    found = conn.extra_dejson.get("headers", {})
    return {str(name): str(value) for name, value in found.items()}


def list_http(source: Http, refused: list[str]) -> list[Remote]:
    """The source's files with what the server says of each; nothing but their names if it answers no HEAD.

    What it says of those that it does not hand out is added to ``refused``.
    """
    root, asking = base_url(connection(source.connection)), session(source)
    found = []
    for path, name in _http_names(source.paths).items():
        url = requests.utils.requote_uri(f"{root}/{path.lstrip('/')}")
        follow = source.auth != "header"  # the header is for this host alone
        answer = asking.head(url, timeout=HEAD_SECONDS, allow_redirects=follow)
        if answer.status_code in REFUSED_HEAD:
            found.append(Remote(name, url))
            continue
        if not answer.ok:
            refused.append(f"{url} answers {answer.status_code} {answer.reason}")
            continue
        size = answer.headers.get("Content-Length")
        encoded = "Content-Encoding" in answer.headers
        changed = answer.headers.get("Last-Modified")
        modified = _http_time(changed) if changed else None
        etag = answer.headers.get("ETag", "")
        found.append(Remote(name, url, int(size) if size and not encoded else None, modified, etag))
    return found


def _http_names(paths: tuple[str, ...]) -> dict[str, str]:
    """What each path's file is called: its last part, and what else tells it from others that end alike."""
    found = {path: posixpath.basename(path.partition("?")[0].rstrip("/")) or "index" for path in paths}
    names = list(found.values())
    for path, name in found.items():
        if names.count(name) > 1:
            folder = re.sub(r"\W+", "-", path.replace(name, "", 1)).strip("-")
            found[path] = posixpath.join(folder, name)
    return found


def _http_time(text: str) -> datetime | None:
    """The time in a header; None if it is none, as the 0 of some servers."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# SFTP, S3, folders


@contextmanager
def sftp_files(source: Sftp) -> Iterator[tuple[list[Remote], Callable[[str], Remote], Fetch]]:
    """What lies on an SFTP server, how one file of it looks by now, and how it is fetched."""
    from airflow.providers.sftp.hooks.sftp import SFTPHook

    with SFTPHook(source.connection).get_managed_conn() as client:
        where = f"sftp://{connection(source.connection).host}"

        def remote(name: str, facts: Any) -> Remote:
            modified = datetime.fromtimestamp(facts.st_mtime, UTC) if facts.st_mtime is not None else None
            return Remote(name, f"{where}{posixpath.join('/', source.path, name)}", facts.st_size, modified)

        def walk(below: str) -> Iterator[Remote]:
            try:
                there = client.listdir_attr(posixpath.join(source.path, below))
            except UnicodeDecodeError as error:
                raise AirflowException(f"source {source.name!r}: a name that is no UTF-8: {error.object!r}") from error
            except FileNotFoundError as error:
                raise AirflowException(f"source {source.name!r}: {where} has no folder {source.path}") from error
            for facts in sorted(there, key=lambda one: one.filename):
                name = posixpath.join(below, facts.filename)
                if stat.S_ISREG(facts.st_mode or 0):
                    yield remote(name, facts)
                elif stat.S_ISDIR(facts.st_mode or 0) and "/" in source.pattern:
                    yield from walk(name)

        def look(name: str) -> Remote:
            return remote(name, client.stat(posixpath.join(source.path, name)))

        def fetch(one: Remote, path: Path) -> int:
            return _resumed(lambda: _copy_sftp(source, one.name, path), source.attempts, one.where)

        yield list(walk("")), look, fetch


def _copy_sftp(source: Sftp, name: str, path: Path) -> None:
    """Appends what is missing, over a connection of its own: the one that broke is of no use any more."""
    from airflow.providers.sftp.hooks.sftp import SFTPHook

    with (
        SFTPHook(source.connection).get_managed_conn() as client,
        client.open(posixpath.join(source.path, name), "rb") as content,
        path.open("ab") as target,
    ):
        content.seek(target.tell())
        content.prefetch()  # from there on
        shutil.copyfileobj(content, target, CHUNK_BYTES)


def _resumed(copy: Callable[[], None], attempts: int, where: str) -> int:
    """Copies until it is done; returns in how many attempts. Raises the last attempt's error."""
    import time

    import paramiko

    for attempt in range(1, attempts + 1):
        try:
            copy()
        except (OSError, EOFError, paramiko.SSHException) as error:
            if attempt == attempts or isinstance(error, FileNotFoundError | PermissionError):
                raise
            logger.warning("%s: broken off (%s); resumed", where, error or type(error).__name__)
            time.sleep(min(2**attempt, 60) / 2)
        else:
            return attempt
    raise AssertionError("unreachable")


def s3_files(source: S3) -> tuple[list[Remote], Callable[[str], Remote], Fetch]:
    """What lies below a prefix, of whatever account the connection is."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    client = S3Hook(source.connection).get_conn()
    bucket, _, prefix = source.path.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""

    def remote(key: str, facts: Any) -> Remote:
        size = facts.get("Size", facts.get("ContentLength"))
        name = key.removeprefix(prefix)
        return Remote(name, f"s3://{bucket}/{key}", size, facts["LastModified"], facts["ETag"].strip('"'))

    def look(name: str) -> Remote:
        return remote(f"{prefix}{name}", client.head_object(Bucket=bucket, Key=f"{prefix}{name}"))

    def fetch(one: Remote, path: Path) -> int:
        answer = client.get_object(Bucket=bucket, Key=f"{prefix}{one.name}", IfMatch=f'"{one.etag}"')
        with path.open("wb") as target:
            shutil.copyfileobj(answer["Body"], target, CHUNK_BYTES)
        return 1

    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    listed = [remote(item["Key"], item) for page in pages for item in page.get("Contents", [])]
    return [one for one in listed if one.name], look, fetch


def folder_files(source: Folder) -> tuple[list[Remote], Callable[[str], Remote], Fetch]:
    """What lies in a mounted folder. Raises AirflowException if it is not mounted."""
    root = Path(source.path)
    if not root.is_dir():
        raise AirflowException(f"source {source.name!r}: there is no folder {root} on this worker; is it mounted?")

    def look(name: str) -> Remote:
        facts = (root / name).stat()
        return Remote(name, str(root / name), facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    def fetch(one: Remote, path: Path) -> int:
        shutil.copyfile(root / one.name, path)
        return 1

    paths = root.rglob("*") if "/" in source.pattern else root.iterdir()
    return [look(str(path.relative_to(root))) for path in sorted(paths) if path.is_file()], look, fetch
