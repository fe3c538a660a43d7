"""What is new at a source, fetched whole and landed once: real FTP, SFTP, HTTP, S3 and SQL servers."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar
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
from include.ingestion.reading import read_files
from include.ingestion.rows import dump_cursor, load_cursor, write_rows
from include.ingestion.sources import Source
from include.orchestration import fetching, file_hosts, row_sources
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


@pytest.mark.parametrize("kind", ["ftp", "folder"])
def test_names_may_be_odd(kind: str, ftp: Host, get: Any) -> None:
    names = ["a b.csv", "ü.csv", "x#y?.csv", "100%.csv", "star*[1].csv", "q'\"`$(id).csv", "-rf.csv"]
    folder = ftp.folder / f"odd ü {kind}"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(LINES)
    if kind == "ftp":
        assert get(ftp, kind="ftp", path=f"/{folder.name}")["files"] == len(names)
        # The server here sends a question mark for a name that is no UTF-8; others send its bytes.
        remote = file_hosts._of_ftp("\xfc.csv", "/out", "ftp://desk", 1, None)
        assert file_hosts.ftp_url(sources.week().sources[0], remote.name).endswith("%20ftp/%FC.csv")
    else:
        (folder / "\udcfc.csv").write_text(LINES)
        names.append("\ufffd.csv")
        assert get(None, kind="folder", path=str(folder))["files"] == len(names)
    assert {one.name for one in landing.landed("desk", landing.week_of(datetime.now(UTC)))} == {*names}
    assert set(landed().values()) == {LINES}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", {"top.csv"}),
        ("**/*.csv", {"top.csv", "one.csv", "two.csv"}),
        ("deep/**/*.csv", {"one.csv", "two.csv"}),
        ("*/*.csv", {"one.csv", "two.csv"}),
    ],
)
def test_a_pattern_names_files_as_a_shell_reads_it(pattern: str, names: set[str], tmp_path: Path, get: Any) -> None:
    for name in ("top.csv", "deep/one.csv", "deep/er/two.csv"):
        (tmp_path / "drop" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "drop" / name).write_text(LINES + name)
    get(None, kind="folder", path=str(tmp_path / "drop"), pattern=pattern)
    assert set(landed()) == names


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


def test_an_address_that_is_gone_does_not_keep_the_others_from_landing(http: Host, get: Any) -> None:
    http.write("there/a.csv", LINES)
    with pytest.raises(AirflowException, match=r"source 'desk': not fetched: \S+/gone.csv answers 404 Not Found"):
        get(http, kind="http", paths=["gone.csv", "there/a.csv"], auth="bearer")
    assert landed() == {"a.csv": LINES}


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

    def grow(errand: Any) -> Any:
        before = listed(errand)
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
    query = {"query": "SELECT body, '10 :30' AS at, team::text FROM tickets WHERE team = 1 -- ours"}
    for files in (1, 0):  # without a cursor the same rows are the same file
        assert get(None, conn=conn, kind="sql", connection="there", **query)["files"] == files
    with pytest.raises(
        AirflowException, match=r"source 'desk': ProgrammingError: .*relation \"nowhere\" does not exist"
    ):
        get(None, conn=conn, kind="sql", connection="there", table="nowhere")


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


class Answers(BaseHTTPRequestHandler):
    """Answers what a test has set."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []  # address and key of each request
    headers_said: ClassVar[dict[str, str]] = {}
    code = 200

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("X-Key", "")))
        here = self.path.startswith("/there")
        content = json.dumps([{"text": f"a card at {self.path.partition('?')[0]}", "label": "card"}]).encode()
        self.send_response(200 if here else self.code)
        for name, value in ({} if here else self.headers_said).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server's port, and what it answers."""
    said = type("Said", (Answers,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), said)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    said.port = server.server_address[1]  # type: ignore[attr-defined]
    said.conn = json.dumps(  # type: ignore[attr-defined]
        {
            "conn_type": "http",
            "host": "127.0.0.1",
            "port": said.port,  # type: ignore[attr-defined]
            "extra": {"headers": {"X-Key": "secret"}},
        }
    )
    yield said
    server.shutdown()
    server.server_close()


def test_paths_that_end_alike_or_are_odd_are_files_of_their_own(answers: Any, get: Any) -> None:
    paths = ["a/x.json", "b/x.json", "all?team=1", "all?team=2", "my file ü.json"]
    fields = {"conn": answers.conn, "kind": "http", "connection": "there", "paths": paths, "format": "json"}
    assert [get(None, **fields)["files"] for _ in range(2)] == [5, 0]
    names = {one.name for one in landing.landed("desk", landing.week_of(datetime.now(UTC)))}
    assert names == {"a/x.json", "b/x.json", "team-1/all.json", "team-2/all.json", "my file ü.json"}
    assert file_hosts._http_time("0") is None
    assert file_hosts._http_time("Wed, 21 Oct 2015 07:28:00 -0000") == datetime(2015, 10, 21, 7, 28, tzinfo=UTC)


def test_an_api_that_knows_no_pages_is_not_asked_for_ever(answers: Any, get: Any) -> None:
    fields = {"conn": answers.conn, "kind": "rest", "connection": "there", "path": "api"}
    with pytest.raises(Exception, match="answers the same page as before: does it know a parameter 'p'"):
        get(None, **fields, paging={"by": "page", "field": "p"})
    assert len(answers.asked) == 2
    assert get(None, **fields, format="csv")["files"] == 1  # it is JSON all the same
    assert set(landed()) == {"rows.jsonl"}


def test_a_key_goes_to_no_other_host(answers: Any, get: Any) -> None:
    answers.code, answers.headers_said = 302, {"Location": f"http://localhost:{answers.port}/there"}
    assert get(None, conn=answers.conn, kind="rest", connection="there", path="api", auth="header")["files"] == 1
    assert answers.asked == [("/api", "secret"), ("/there", "")]
    conn = json.dumps({"conn_type": "http", "host": "http://ada:secret@127.0.0.1"})
    with pytest.raises(AirflowException, match="move login and password out of its host"):
        get(None, conn=conn, kind="rest", connection="there", path="api")


def test_what_a_document_database_holds_arrives_as_text(tmp_path: Path) -> None:
    from bson import Decimal128, ObjectId

    key = ObjectId("65a000000000000000000001")
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    document = {"_id": key, "text": "hi", "price": Decimal128("1.10"), "at": at, "who": {"name": "Ä", "ids": [key]}}
    assert write_rows([document], tmp_path / "rows.jsonl", "_id") == (1, key, 0)
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {
        "_id": str(key), "text": "hi", "price": "1.10", "at": "2026-01-01T12:00:00+00:00",
        "who": '{"name": "Ä", "ids": ["65a000000000000000000001"]}',
    }  # fmt: skip
    for value in (key, at, at.date(), Decimal("1.10"), 7, "7", None, 1.5):
        assert load_cursor(json.loads(json.dumps(dump_cursor(value)))) == value
    with pytest.raises(ValueError, match="none of 1 rows has a value in the cursor column 'at'"):
        write_rows([{"a": 1}], tmp_path / "rows.jsonl", "at")


def test_an_odd_value_costs_its_row_and_not_what_came_with_it(tmp_path: Path, get: Any, engine: Engine) -> None:
    rows = [{"id": 1, "text": "a card"}, {"id": None, "text": "a loan"}, {"id": "x"}, {"id": 3, "text": "half \ud83d"}]
    assert write_rows(rows, tmp_path / "rows.jsonl", "id") == (2, 3, 2)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE odd (id int, body text, label text, at timestamptz)"))
        connection.execute(sa.text("INSERT INTO odd VALUES (1, 'a card', 'card', now()), (2, 'a loan', 'loan', NULL)"))
    where = {"host": engine.url.query["host"], "login": engine.url.username, "schema": engine.url.database}
    fields = {"conn": json.dumps({"conn_type": "postgres", **where}), "kind": "sql", "connection": "there"}
    assert get(None, **fields, table="odd", cursor="at")["files"] == 1
    week = landing.week_of(datetime.now(UTC))
    (record,) = landing.landed("desk", week)
    said = "1 rows were left out: they have no value, or an odd one, in the cursor column 'at'"
    assert record.warnings == (said,)
    (read,) = read_files([(sources.week().source("desk"), record)], "run", "quarantine").files
    assert (read.good, read.warnings[0]) == (1, said)
    assert get(None, **fields, table="odd", cursor="id")["files"] == 1  # another column: from the beginning
    assert get(None, **fields, table="odd", cursor="id")["files"] == 0


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
