"""Fetches what is new at a source, and lands it: each file whole or not at all, and none twice."""
# Only imported inside tasks.

import base64
import binascii
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException
from airflow.models import DagRun
from airflow.utils.types import DagRunType

from include.ingestion import landing
from include.ingestion.landing import Landed, Remote
from include.ingestion.rows import dump_cursor, load_cursor, write_rows
from include.ingestion.sources import Ftp, Http, Source
from include.orchestration import file_hosts, row_sources
from include.orchestration.file_hosts import SIDECARS, is_data

logger = logging.getLogger(__name__)

RunScript = Callable[[Path, dict[str, str]], bool]
"""Runs download.sh on a list of files, with more environment; whether it got all of them."""


class DamagedFile(AirflowException):
    """A file is not what its server's checksum says."""


@dataclass
class Errand:
    """One source's download in one run."""

    source: Source
    until: datetime
    folder: Path
    marks: set[str]
    landed: list[Landed] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # files that still grow
    failed: list[str] = field(default_factory=list)

    def land(self, remote: Remote, path: Path, attempts: int = 1, **facts: Any) -> None:
        """Lands a whole file, and takes it from the worker's disk. ``facts`` are more of its record."""
        source = self.source
        record = landing.land(
            source.name, landing.week_of(self.until), remote, path, until=self.until, marks=self.marks,
            attempts=attempts, **facts,
        )  # fmt: skip
        path.unlink()
        if record is not None:
            self.landed.append(record)
            logger.info("landed %s (%d bytes, %d attempt(s)) as %s", record.where, record.size, attempts, record.uri)

    def leave(self, remote: Remote) -> None:
        """Leaves a file that changed while it was fetched; the next run looks again."""
        self.left.append(remote.name)
        logger.info("%s still changes: left for the next run", remote.where)


def until_of(dag_run: DagRun) -> datetime:
    """Up to when a run takes what its sources have: the end of its week, or now if somebody started it by hand."""
    by_hand = dag_run.run_type == DagRunType.MANUAL
    moment: datetime = dag_run.logical_date if by_hand else dag_run.data_interval_end
    return min(moment.astimezone(UTC), datetime.now(UTC))


def download(source: Source, until: datetime, run_script: RunScript) -> dict[str, Any]:
    """Lands all that is new at a source; returns what that was.

    Raises AirflowException, after it has landed what could be had, with what could not.
    """
    folder = _folder(source.name)
    errand = Errand(source, until, folder, landing.seen_marks(source.name))
    try:
        if source.by_curl:
            _by_curl(errand, run_script)
        elif source.kind in ("sql", "rest", "mongo"):
            _rows(errand)
        else:
            _files(errand)
    except AirflowException:
        raise
    except Exception as error:  # a driver's own words do not say which source it is about
        raise AirflowException(f"source {source.name!r}: {type(error).__name__}: {error}") from error
    if errand.failed:
        raise AirflowException(f"source {source.name!r}: not fetched: {'; '.join(errand.failed)}")
    return {
        "source": source.name,
        "files": len(errand.landed),
        "bytes": sum(one.size for one in errand.landed),
        "left": errand.left,
        "resumed": sum(one.attempts > 1 for one in errand.landed),
    }


def _folder(name: str) -> Path:
    """Where broken transfers of a source wait for the next try of the task, for this user alone."""
    base = Path(tempfile.gettempdir()) / f"weekly-etl-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise AirflowException(f"{base} belongs to somebody else; delete it")
    folder = base / name
    folder.mkdir(exist_ok=True)
    return folder


def _wanted(errand: Errand, listed: list[Remote], pattern: str) -> list[Remote]:
    data = [one for one in listed if is_data(one.name, pattern)]
    waiting = errand.source.settled_seconds
    wanted = [one for one in data if landing.is_wanted(one, errand.marks, errand.until, waiting)]
    logger.info(
        "source %r: %d files are there, %d are data, of which %d are new, and were last changed before %s and %g s ago",
        errand.source.name, len(listed), len(data), len(wanted), errand.until, waiting,
    )  # fmt: skip
    return wanted


def _path(errand: Errand, remote: Remote) -> Path:
    """Where a file is fetched to: the same for the same content, so that another try goes on with it."""
    name = remote.mark or hashlib.sha256(remote.name.encode()).hexdigest()[:32]
    path = errand.folder / name
    if not remote.mark:  # nothing says that what lies there is of the same content
        for one in (path, *errand.folder.glob(f"{name}.*")):
            one.unlink(missing_ok=True)
    return path


# Files that the shell script fetches.


def _by_curl(errand: Errand, run_script: RunScript) -> None:
    source = errand.source
    assert isinstance(source, Ftp | Http)
    listed = _listed(errand)
    wanted = _wanted(errand, listed, source.pattern if isinstance(source, Ftp) else "*")
    if not wanted:
        return
    sums = {one.name: one for one in listed if one.name.endswith(SIDECARS)}
    paths = {one: _path(errand, one) for one in wanted}
    asked = list(paths.items())
    for one, path in paths.items():
        asked += [(sums[one.name + end], path.with_suffix(end)) for end in SIDECARS if one.name + end in sums]
    files = errand.folder / "files.tsv"
    files.write_text("".join(f"{_url(source, one)}\t{path}\n" for one, path in asked))
    with _curl_config(source) as config:
        run_script(files, {"CURL_CONFIG": str(config), "ATTEMPTS": str(source.attempts)})
    now = {one.name: one for one in _listed(errand)} if isinstance(source, Ftp) else {}
    for one, path in paths.items():
        if not path.exists():
            errand.failed.append(f"{one.where} (see the log)")
        elif isinstance(source, Ftp) and now.get(one.name) != one:
            path.unlink()
            errand.leave(one)
        else:
            _land_checked(errand, one, path, int(path.with_name(f"{path.name}.attempts").read_text()))


def _listed(errand: Errand) -> list[Remote]:
    source: Any = errand.source
    if isinstance(source, Http):
        return file_hosts.list_http(source, errand.failed)
    with file_hosts.ftp_client(source) as client:
        return file_hosts.list_ftp(client, source)


def _url(source: Ftp | Http, remote: Remote) -> str:
    return file_hosts.ftp_url(source, remote.name) if isinstance(source, Ftp) else remote.where


@contextmanager
def _curl_config(source: Ftp | Http) -> Iterator[Path]:
    """A file with curl's options that nobody else may read, for as long as the block runs."""
    conn = file_hosts.connection(source.connection)
    lines = []
    if isinstance(source, Ftp):
        lines += [f"user = {_quoted(f'{conn.login}:{conn.password}')}"] if conn.login else []
        lines += ["ssl-reqd"] if source.kind == "ftps" else []
    else:
        if source.auth == "basic":
            lines.append(f"user = {_quoted(f'{conn.login}:{conn.password}')}")
        if source.auth == "bearer":
            lines.append(f"oauth2-bearer = {_quoted(conn.password or '')}")
        if source.auth == "header":
            lines += [f"header = {_quoted(f'{name}: {value}')}" for name, value in file_hosts.headers_of(conn).items()]
            lines.append("no-location")  # curl would hand such a header to whatever host it is sent on to
    handle, name = tempfile.mkstemp()  # readable by its owner alone
    try:
        with os.fdopen(handle, "w") as file:
            file.write("\n".join(lines) + "\n")
        yield Path(name)
    finally:
        Path(name).unlink()


def _quoted(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise AirflowException("a connection's login, password or header has a line break")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# Files that hooks fetch.


def _files(errand: Errand) -> None:
    source: Any = errand.source
    if source.kind == "sftp":
        with file_hosts.sftp_files(source) as host:
            _fetch_all(errand, *host)
    else:
        _fetch_all(errand, *(file_hosts.s3_files if source.kind == "s3" else file_hosts.folder_files)(source))


def _fetch_all(
    errand: Errand, listed: list[Remote], look: Callable[[str], Remote], fetch: file_hosts.Fetch
) -> None:  # fmt: skip
    source: Any = errand.source
    there = {one.name for one in listed}
    for one in _wanted(errand, listed, source.pattern):
        path = _path(errand, one)
        try:
            attempts = fetch(one, path)
            for end in SIDECARS:
                if one.name + end in there:
                    fetch(look(one.name + end), path.with_suffix(end))
            after = look(one.name)
        except Exception as error:  # one file must not keep the others from landing
            logger.exception("%s cannot be fetched", one.where)
            errand.failed.append(f"{one.where}: {error or type(error).__name__}")
            continue
        if after.mark != one.mark:
            path.unlink()
            errand.leave(one)
        else:
            _land_checked(errand, one, path, attempts)


def _land_checked(errand: Errand, remote: Remote, path: Path, attempts: int) -> None:
    try:
        _check(remote, path)
    except DamagedFile as error:
        path.unlink()
        errand.failed.append(str(error))
    else:
        errand.land(remote, path, attempts, ending=errand.source.format or "")
    finally:
        for left in errand.folder.glob(f"{path.name}.*"):
            left.unlink()


def _check(remote: Remote, path: Path) -> None:
    """Compares a fetched file with its size and with the checksums that its server has. Raises DamagedFile."""
    if remote.size is not None and path.stat().st_size != remote.size:
        raise DamagedFile(f"{remote.where} has {remote.size} bytes, and {path.stat().st_size} were fetched")
    expected = {}
    for end in SIDECARS:
        sums = path.with_suffix(end)
        text = sums.read_text(errors="replace") if sums.exists() else ""
        if found := re.match(r"\s*([0-9A-Fa-f]{32,64})\b", text):
            expected[end.lstrip(".")] = found[1].lower()
    headers = path.with_name(f"{path.name}.headers")
    said = headers.read_text(errors="replace").strip().split("\n\n")[-1] if headers.exists() else ""
    for algorithm, digest in _told(said, remote):
        expected.setdefault(algorithm, digest)
    for algorithm, digest in expected.items():
        with path.open("rb") as content:
            if hashlib.file_digest(content, algorithm).hexdigest() != digest:
                raise DamagedFile(f"{remote.where} is not what the server's {algorithm} says: damaged on its way")


def _told(said: str, remote: Remote) -> Iterator[tuple[str, str]]:
    """The checksums in an HTTP server's answer, as algorithm and hex digest."""
    if re.search(r"(?im)^content-encoding:", said):
        return
    whole = not re.match(r"HTTP/\S+ 206", said)  # else what is of the content is of its last part
    for algorithm, of_part, pattern in (
        ("sha256", False, r"(?im)^(?:repr-digest|digest):.*sha-256=:?([A-Za-z0-9+/=]+)"),
        ("sha256", True, r"(?im)^content-digest:.*sha-256=:?([A-Za-z0-9+/=]+)"),
        ("md5", True, r"(?im)^content-md5: *([A-Za-z0-9+/=]+)"),
    ):
        if (whole or not of_part) and (found := re.search(pattern, said)):
            try:
                yield algorithm, base64.b64decode(found[1]).hex()
            except binascii.Error:
                logger.warning("%s: the server's checksum is no base64", remote.where)


# Rows.


def _rows(errand: Errand) -> None:
    source: Any = errand.source
    column = source.cursor
    after = load_cursor(landing.last_cursor(source.name, column)) if column else None
    path = errand.folder / "rows.jsonl"
    written = write_rows(row_sources.rows(source, after, errand.until), path, column)
    logger.info("source %r: %d rows%s", source.name, written.rows, f" after {after}" if after is not None else "")
    left = (f"{written.left} rows were left out: they have no value, or an odd one, in the cursor column {column!r}",)
    if written.rows:
        remote = Remote("rows.jsonl", row_sources.where(source))
        cursor = dump_cursor(written.newest)
        errand.land(remote, path, cursor=cursor, cursor_column=column, warnings=left if written.left else ())
