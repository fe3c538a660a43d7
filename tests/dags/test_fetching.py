"""What is new at a source, fetched whole and landed once: real FTP, SFTP, HTTP, S3 and SQL servers."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
import trustme
from airflow.exceptions import AirflowException
from pydantic import TypeAdapter
from sqlalchemy.engine import Engine

from dev.source_servers import PASSWORD, USER, Host, ftp_server, http_server, mongo_server, sftp_server
from include import lake, objects
from include.ingestion import landing, sources
from include.ingestion.rows import dump_cursor, load_cursor, write_rows
from include.ingestion.sources import Source
from include.orchestration import fetching, row_sources
from include.orchestration.download_operator import DownloadData
from include.settings import settings

pytest_plugins = ["tests.unit.registry_services"]

LINES = "text,label\n" + "".join(f"a card number {at},card\n" for at in range(4000))
WEEK = timedelta(days=7)
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with ftp_server(tmp_path_factory.mktemp("ftp"), masquerade="10.255.255.1") as host:
        yield host


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with sftp_server(tmp_path_factory.mktemp("sftp")) as host:
        yield host


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with http_server(tmp_path_factory.mktemp("http")) as host:
        yield host


@pytest.fixture(scope="module")
def ftps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Its certificate is a private authority's, as SSL_CERT_FILE says while the fixture lasts."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    with (
        pytest.MonkeyPatch.context() as patch,
        ftp_server(tmp_path_factory.mktemp("ftps"), certificate=folder / "server.pem") as host,
    ):
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        yield host


@pytest.fixture(scope="module")
def mongo() -> Iterator[str]:
    with mongo_server() as port:
        yield f"mongo://127.0.0.1:{port}/"


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BERT_BUCKET", f"file://{tmp_path}/lake")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PAUSE", "0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Downloads a source as the task does, with a connection to a host."""

    def run(host: Host | None, until: datetime | None = None, conn: str = "", **source: Any) -> dict[str, Any]:
        login = f"{USER}:{quote(PASSWORD, safe='')}@" if source["kind"] in ("ftp", "ftps", "sftp") else ":t0ken@"
        options = "?no_host_key_check=true" if source["kind"] == "sftp" else ""
        scheme = {"ftp": "ftp", "ftps": "ftp", "sftp": "sftp"}.get(source["kind"], "http")
        if host is not None:
            conn = f"{scheme}://{login}127.0.0.1:{host.port}/{options}"
            source = {"connection": "there", "settled_seconds": 0, "name": "desk"} | source
        monkeypatch.setenv("AIRFLOW_CONN_THERE", conn)
        made = TypeAdapter(Source).validate_python({"settled_seconds": 0, "name": "desk"} | source)
        monkeypatch.setattr(sources, "week", lambda: sources.Week(sources=(made,)))
        by_hand = SimpleNamespace(run_type="manual", logical_date=until or datetime.now(UTC))
        return DownloadData(task_id="download_data", source="desk").execute({"dag_run": by_hand})

    return run


def landed(week: str = "") -> dict[str, str]:
    """The landed files of all weeks by name, with what is in them."""
    found = objects.find(lake.raw("desk"))
    files = [uri for uri in found if "/_landed/" not in uri]
    assert len(files) == len(found) - len(files), "each has its record, and nothing else lies there"
    return {uri.rsplit("/", 1)[-1]: objects.read_bytes(uri).decode() for uri in files}


FILES = [
    ("ftp", {"path": "/out", "pattern": "*.csv"}),
    ("ftps", {"path": "/out", "pattern": "*.csv"}),
    ("sftp", {"path": "/out"}),
    ("http", {"paths": ["out/a.csv"], "auth": "bearer"}),
]


@pytest.mark.parametrize(("kind", "fields"), FILES, ids=["ftp", "ftps", "sftp", "http"])
def test_a_file_is_landed_once_and_again_when_its_content_is_new(
    kind: str, fields: dict[str, Any], request: pytest.FixtureRequest, get: Any
) -> None:
    host = request.getfixturevalue(kind)
    host.write("out/a.csv", LINES, at=1e9)
    host.write("out/b.csv.part", "text,la")
    assert get(host, kind=kind, **fields)["files"] == 1
    host.asked.clear()
    assert get(host, kind=kind, **fields) == {"source": "desk", "files": 0, "bytes": 0, "left": [], "resumed": 0}
    assert "a.csv" not in host.asked
    host.write("out/a.csv", LINES + "one more,card\n", at=2e8 + 1e9)
    assert get(host, kind=kind, **fields)["files"] == 1
    found = landed()
    assert sorted(map(len, found.values())) == [len(LINES), len(LINES) + 14]
    assert "a.csv" in found
    (record, *_) = landing.landed("desk", landing.week_of(datetime.now(UTC)))
    assert record.where.endswith("/out/a.csv")
    assert PASSWORD not in record.where
    assert record.seen_at == datetime.fromtimestamp(1e9, UTC)


@pytest.mark.parametrize(("kind", "fields"), FILES, ids=["ftp", "ftps", "sftp", "http"])
def test_a_transfer_that_breaks_goes_on_where_it_stopped(
    kind: str, fields: dict[str, Any], request: pytest.FixtureRequest, get: Any
) -> None:
    host = request.getfixturevalue(kind)
    content = LINES * 5
    host.write("out/a.csv", content, at=1e9)
    host.breaks = 2
    assert get(host, kind=kind, **fields)["resumed"] == 1
    host.breaks = 0
    assert landed() == {"a.csv": content}
    if kind == "http":
        assert any(one.startswith("a.csv bytes=") for one in host.asked)


def test_what_cannot_be_fetched_fails_the_task_and_the_rest_has_landed(ftp: Host, get: Any) -> None:
    ftp.write("some/a.csv", LINES)
    ftp.write("some/b.csv", "text,label\n")
    ftp.write("some/b.csv.sha256", f"{'0' * 64}  b.csv\n")
    with pytest.raises(AirflowException, match=r"source 'desk': not fetched: .*b.csv is not what the server's sha256"):
        get(ftp, kind="ftp", path="/some")
    assert landed() == {"a.csv": LINES}
    with pytest.raises(AirflowException, match="550"):
        get(ftp, kind="ftp", path="/nowhere")


def test_a_file_that_is_not_what_its_server_says_is_fetched_again_by_the_next_try(http: Host, get: Any) -> None:
    fields = {"kind": "http", "paths": ["sums/a.csv"], "auth": "bearer"}
    http.write("sums/a.csv", LINES)
    http.damages = True
    with pytest.raises(AirflowException, match=r"sums/a.csv is not what the server's sha256 says: damaged on its way"):
        get(http, **fields)
    http.damages = False
    assert landed() == {}
    assert get(http, **fields)["files"] == 1


def test_a_file_that_grows_while_it_is_fetched_is_left(ftp: Host, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ftp.write("grows/a.csv", LINES, at=1e9)
    listed = fetching._listed

    def grow(source: Any) -> Any:
        before = listed(source)
        ftp.write("grows/a.csv", LINES + LINES, at=1e9 + 1)
        return before

    monkeypatch.setattr(fetching, "_listed", grow)
    assert get(ftp, kind="ftp", path="/grows")["left"] == ["a.csv"]
    assert landed() == {}


def test_a_file_belongs_to_the_week_it_was_changed_in_whenever_that_is_done(sftp: Host, get: Any) -> None:
    weeks = [NOW - 2 * WEEK, NOW - WEEK, NOW - timedelta(seconds=5)]
    for number, at in enumerate(weeks):
        sftp.write(f"weeks/{number}.csv", LINES, at=at.timestamp())
    for number, at in enumerate(weeks):
        assert get(sftp, until=at + timedelta(seconds=1), kind="sftp", path="/weeks")["files"] == 1
        (record,) = landing.landed("desk", landing.week_of(at + timedelta(seconds=1)))
        assert record.name == f"{number}.csv"


def test_a_folder_and_a_bucket_are_sources_too(
    tmp_path: Path, get: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drop" / "deep").mkdir(parents=True)
    (tmp_path / "drop" / "deep" / "a.csv").write_text(LINES)
    fields = {"path": str(tmp_path / "drop"), "kind": "folder"}
    assert get(None, **fields)["files"] == 0
    assert get(None, **fields, pattern="*/*.csv")["files"] == 1
    with pytest.raises(AirflowException, match="is it mounted"):
        get(None, kind="folder", path=str(tmp_path / "nowhere"))
    import boto3

    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_url, **keys)
    client.create_bucket(Bucket="theirs")
    client.put_object(Bucket="theirs", Key="export/b.csv", Body=LINES.encode())
    conn = f"aws://a:b@/?region_name=us-east-1&endpoint_url={quote(s3_url, safe='')}"
    for files in (1, 0):
        assert get(None, conn=conn, kind="s3", connection="there", path="theirs/export")["files"] == files
    assert set(landed()) == {"a.csv", "b.csv"}


def test_of_a_table_only_rows_after_the_newest_so_far_are_fetched_and_all_values_are_text(
    engine: Engine, get: Any
) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE tickets (id text, body text, team int, price numeric, at timestamptz)")
        )
        rows = "('007', 'a card', 1, 1.10, '2026-01-05T10:00Z'), ('8', NULL, 2, 2, '2026-01-20T10:00Z')"
        connection.execute(sa.text(f"INSERT INTO tickets VALUES {rows}"))
    where = {"host": engine.url.query["host"], "login": engine.url.username, "schema": engine.url.database}
    conn = json.dumps({"conn_type": "postgres", **where})
    fields = {"kind": "sql", "connection": "there", "table": "tickets", "cursor": "at"}
    assert get(None, conn=conn, until=datetime(2026, 1, 10, tzinfo=UTC), **fields)["files"] == 1
    assert get(None, conn=conn, until=datetime(2026, 1, 27, tzinfo=UTC), **fields)["files"] == 1
    assert get(None, conn=conn, until=datetime(2026, 1, 28, tzinfo=UTC), **fields)["files"] == 0
    first, second = (landing.landed("desk", week)[0].uri for week in ("2026-W02", "2026-W05"))
    row = json.loads(objects.read_bytes(first))
    assert row["id"] == "007"
    assert (row["team"], row["price"]) == ("1", "1.10")
    assert row["at"].startswith("2026-01-05T")
    assert json.loads(objects.read_bytes(second))["body"] is None
    query = {"query": "SELECT body FROM tickets WHERE team = 1;"}
    for files in (1, 0):  # without a cursor the same rows are the same file
        assert get(None, conn=conn, kind="sql", connection="there", **query)["files"] == files


def test_an_api_is_read_page_by_page_and_goes_on_from_the_newest_record(http: Host, get: Any) -> None:
    rows = [{"id": at, "text": f"a card {at}", "price": 0.1, "tags": {"a": [1]}} for at in range(1, 6)]
    http.write("messages.json", json.dumps(rows))
    fields = {
        "kind": "rest", "path": "api/messages", "records": "data.rows", "auth": "bearer", "cursor": "id",
        "since": "since", "paging": {"by": "next_link", "field": "next"},
    }  # fmt: skip
    assert get(http, **fields)["files"] == 1
    assert get(http, **fields)["files"] == 0
    http.write("messages.json", json.dumps([*rows, {"id": 6, "text": "a refund"}]))
    assert get(http, **fields)["files"] == 1
    lines = [[json.loads(line) for line in content.splitlines()] for content in landed().values()]
    first, second = sorted(lines, key=len, reverse=True)
    assert [row["id"] for row in first] == ["1", "2", "3", "4", "5"]
    assert (first[0]["price"], first[0]["tags"]) == ("0.1", '{"a": [1]}')
    assert second == [{"id": "6", "text": "a refund"}]
    assert row_sources._is_before("2026-01-04", datetime(2026, 1, 5, tzinfo=UTC))
    assert not row_sources._is_before("2026-01-05T00:00:00Z", datetime(2026, 1, 5, tzinfo=UTC))
    with pytest.raises(Exception, match="is no list of JSON objects"):
        get(http, **(fields | {"records": "data"}))


def test_what_a_document_database_holds_arrives_as_text(tmp_path: Path) -> None:
    from bson import Decimal128, ObjectId

    key = ObjectId("65a000000000000000000001")
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    document = {"_id": key, "text": "hi", "price": Decimal128("1.10"), "at": at, "who": {"name": "Ä", "ids": [key]}}
    count, newest = write_rows([document], tmp_path / "rows.jsonl", "_id")
    assert (count, newest) == (1, key)
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {
        "_id": str(key), "text": "hi", "price": "1.10", "at": "2026-01-01T12:00:00+00:00",
        "who": '{"name": "Ä", "ids": ["65a000000000000000000001"]}',
    }  # fmt: skip
    for value in (key, at, at.date(), Decimal("1.10"), 7, "7", None, 1.5):
        assert load_cursor(json.loads(json.dumps(dump_cursor(value)))) == value
    with pytest.raises(ValueError, match="no value in the cursor column 'at'"):
        write_rows([{"a": 1}], tmp_path / "rows.jsonl", "at")


def test_of_a_collection_only_documents_after_the_newest_so_far_are_fetched(mongo: str, get: Any) -> None:
    """The server is a stand-in that speaks MongoDB's protocol; the client is MongoDB's own."""
    from bson import ObjectId
    from pymongo import MongoClient

    keys = [ObjectId(f"65a00000000000000000000{number}") for number in range(4)]
    source = {
        "kind": "mongo", "connection": "there", "database": "desk", "collection": "messages", "cursor": "_id",
        "filter": {"spam": False}, "columns": {"text": "body", "label": "team"},
    }  # fmt: skip
    with MongoClient(mongo.replace("mongo:", "mongodb:")) as client:
        messages = client["desk"]["messages"]
        documents = [
            {"_id": key, "body": f"text {at}", "team": "a", "spam": at == 1, "from": {"name": "Ä"}}
            for at, key in enumerate(keys)
        ]
        messages.insert_many(documents[:2])
        assert get(None, conn=mongo, **source)["files"] == 1
        assert get(None, conn=mongo, **source)["files"] == 0
        messages.insert_many(documents[2:])
        assert get(None, conn=mongo, **source)["files"] == 1
    lines = [json.loads(line) for content in landed().values() for line in content.splitlines()]
    assert sorted(line["body"] for line in lines) == ["text 0", "text 2", "text 3"]
    assert {line["from"] for line in lines} == {'{"name": "Ä"}'}


def test_credentials_are_in_no_command_line_no_rendered_field_and_no_file_that_others_read(
    ftp: Host, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(self: Any, command: list[str], env: dict[str, str], **_: Any) -> Any:
        config = Path(env["CURL_CONFIG"])
        seen.append((command, config.read_text(), config.stat().st_mode & 0o777, config))
        assert PASSWORD not in str({**env, "AIRFLOW_CONN_THERE": ""})
        return SimpleNamespace(exit_code=1, output="")

    monkeypatch.setattr("airflow.hooks.subprocess.SubprocessHook.run_command", watch)
    ftp.write("secret/a.csv", LINES)
    with pytest.raises(AirflowException):
        get(ftp, kind="ftp", path="/secret")
    ((command, config, mode, path),) = seen
    assert PASSWORD not in " ".join(command)
    assert config.startswith('user = "ada:p\\"w')
    assert mode == 0o600
    assert not path.exists()
    assert DownloadData.template_fields == ("source",)
    assert os.getuid() == Path(path.parent / f"weekly-etl-{os.getuid()}").stat().st_uid


def test_a_server_without_mlsd_is_listed_by_names_and_asked_for_size_and_time(
    ftp: Host, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ftplib

    def refused(*_: Any) -> None:
        raise ftplib.error_perm("500 unknown command")

    monkeypatch.setattr(ftplib.FTP, "mlsd", refused)
    ftp.write("old/a.csv", LINES, at=1e9)
    ftp.write("old/deep/b.csv", LINES)
    assert [get(ftp, kind="ftp", path="/old")["files"] for _ in range(2)] == [1, 0]
    (record,) = landing.landed("desk", landing.week_of(datetime.now(UTC)))
    assert (record.size, record.modified) == (len(LINES), datetime.fromtimestamp(1e9, UTC))
