"""Weeks of the DAG, run by Airflow: real PostgreSQL, S3, FTP, SFTP and HTTP; one of them trains a tiny model."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import s3fs
import sqlalchemy as sa
import yaml
from airflow.models import DagBag, DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from mlflow import MlflowClient
from sqlalchemy.engine import Engine

from dev.source_servers import PASSWORD, USER, Host, ftp_server, http_server, sftp_server
from include import lake
from include.evaluation import charts
from include.ingestion import sources
from include.orchestration import curating
from include.registry import models
from include.settings import settings
from include.uploads import claims, lifecycle

pytest_plugins = ["tests.unit.registry_services"]

DAGS = Path(__file__).parents[2] / "dags"
TRAINING = "build_dataset|train_model|evaluate_model|upload_model"
WEEKS = [datetime(2026, 1, 4, tzinfo=UTC) + timedelta(days=7 * number) for number in range(4)]  # their ends
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@127.0.0.1"


@dataclass
class Etl:
    """The DAG with its sources, and what it leaves."""

    folder: Path
    ftp: Host
    sftp: Host
    http: Host
    engine: Engine

    def run(self, week: int, *, train: bool = False) -> DagRun:
        """The run at the end of a week; another of the same week is the same run, cleared."""
        listed = [
            {"name": "desk", "kind": "ftp", "connection": "ftp_desk", "path": "/", "trust": 1},
            {"name": "shop", "kind": "sftp", "connection": "sftp_shop", "path": "/"},
            {"name": "site", "kind": "http", "connection": "http_site", "paths": ["site.jsonl"], "auth": "bearer"},
            {"name": "new-ones", "kind": "sftp", "connection": "sftp_shop", "path": "/new", "labelled": False,
             "columns": {"text": "message"}},
        ]  # fmt: skip
        path = self.folder / "sources.yaml"
        path.write_text(yaml.safe_dump({"sources": listed}))
        dag = self.dag()
        for task in dag.tasks:
            arguments = getattr(task, "partial_kwargs", task.__dict__)  # of a mapped one
            arguments["retry_delay"] = timedelta(0)  # five minutes on a fast clock
        return dag.test(WEEKS[week], mark_success_pattern=None if train else TRAINING)

    def dag(self) -> Any:
        """As it is parsed now."""
        sources.week.cache_clear()
        bag = DagBag(DAGS / "weekly_etl.py", include_examples=False)
        assert not bag.import_errors, bag.import_errors
        return bag.dags["weekly_etl"]

    def landed(self, source: str) -> list[str]:
        found = [uri for uri in lake.find(lake.raw(source)) if "/_landed/" not in uri]
        return sorted(uri.rsplit("/", 1)[-1] for uri in found)

    def write(self, week: int, host: str, name: str, rows: dict[str, str]) -> None:
        """A file that was changed a day before a week's end: texts and labels."""
        at = (WEEKS[week] - timedelta(days=1)).timestamp()
        if name.endswith(".jsonl"):
            content = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows.items())
        else:
            content = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows.items())
        getattr(self, host).write(name, content, at=at)

    def table(self, name: str = "training_examples") -> list[Any]:
        with self.engine.connect() as connection:
            columns = "text, label, source, first_seen, last_seen, label_version"
            return connection.execute(sa.text(f"SELECT {columns} FROM {name} ORDER BY text")).fetchall()

    def forget(self) -> None:
        """A warehouse without a past; what has landed stays."""
        with self.engine.begin() as connection:
            for name in ("training_examples", "example_sightings"):
                connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))

    def empty(self) -> None:
        self.forget()
        for host in (self.ftp, self.sftp, self.http):
            for path in host.folder.rglob("*.*"):
                path.unlink()
        (self.sftp.folder / "new").mkdir(exist_ok=True)
        self.http.write("site.jsonl", "", at=1e9)
        for folder in ("raw", "staging"):
            if lake.find(f"{lake.root()}/{folder}"):
                lake.filesystem(lake.root()).rm(f"{lake.root()}/{folder}", recursive=True)


def states(run: DagRun) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def facts(week: int) -> dict[str, Any]:
    from include.ingestion.landing import week_of

    return lake.read_json(lake.week_facts("weekly_etl", week_of(WEEKS[week])))


@pytest.fixture(scope="module")
def etl(tmp_path_factory: pytest.TempPathFactory, s3_url: str, engine: Engine, tiny_bert: Path) -> Iterator[Etl]:
    folder = tmp_path_factory.mktemp("etl")
    mlflow = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(mlflow).create_experiment("etl-model", artifact_location=str(folder / "artifacts"))
    warehouse = {"host": engine.url.query["host"], "login": engine.url.username, "schema": engine.url.database}
    with (
        ftp_server(tmp_path_factory.mktemp("ftp")) as ftp,
        sftp_server(tmp_path_factory.mktemp("sftp")) as sftp,
        http_server(tmp_path_factory.mktemp("http")) as http,
        pytest.MonkeyPatch.context() as patch,
    ):
        values = {
            "MLFLOW_TRACKING_URI": mlflow, "MLFLOW_DISABLE_TELEMETRY": "true", "AWS_ENDPOINT_URL": s3_url,
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
            "BERT_BUCKET": "etl", "BERT_MODEL_NAME": "etl-model", "BERT_BASE_MODEL": str(tiny_bert),
            "BERT_EPOCHS": "1", "BERT_MAX_LENGTH": "32",
            "BERT_GOLDEN_MIN_ROWS": "5", "BERT_MIN_ACCURACY": "0", "BERT_MIN_CLASS_RECALL": "0",
            "BERT_SOURCES": str(folder / "sources.yaml"), "TMPDIR": str(folder),
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "postgres", **warehouse}),
            "AIRFLOW_CONN_FTP_DESK": f"ftp://{LOGIN}:{ftp.port}/",
            "AIRFLOW_CONN_SFTP_SHOP": f"sftp://{LOGIN}:{sftp.port}/?no_host_key_check=true",
            "AIRFLOW_CONN_HTTP_SITE": f"http://:t0ken@127.0.0.1:{http.port}/",
        }  # fmt: skip
        for name, value in values.items():
            patch.setenv(name, value)
        patch.setattr("tempfile.tempdir", str(folder))
        settings.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        lake.filesystem("s3://etl").mkdirs("etl", exist_ok=True)
        initdb(load_connections=False)
        yield Etl(folder, ftp, sftp, http, engine)
        with create_session() as session:
            session.query(DagRun).delete()
    settings.cache_clear()
    sources.week.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def numbered(words: str, label: str, count: int) -> dict[str, str]:
    return {f"{words} {at}": label for at in range(count)}


def test_a_week_goes_from_its_sources_to_a_model_and_a_report(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    for picture in ("confusion_matrix", "intervals"):  # takes seconds; the report's own tests look at them
        monkeypatch.setattr(charts, picture, lambda *_: "")
    etl.empty()
    etl.write(0, "ftp", "a.csv", numbered("where is my card", "card", 60) | {"n/a": "card", "odd <b>": ""})
    etl.write(0, "sftp", "b.csv", numbered("a refund please", "refund", 60))
    etl.write(0, "http", "site.jsonl", {"where is my card 1": "refund", "lost card": "card"})
    etl.ftp.write("broken.xlsx", b"no workbook", at=(WEEKS[0] - timedelta(days=1)).timestamp())
    etl.sftp.write("new/texts.csv", "message,when\nwhere is my card,now\nrefund,now\n ,now\nrefund,again\n", at=1.7e9)
    run = etl.run(0, train=True)
    assert run.state == "success"
    assert set(states(run).values()) == {"success"}
    expected = {f"where is my card {at}" for at in range(60)} | {f"a refund please {at}" for at in range(60)}
    assert {row.text for row in etl.table()} == expected | {"lost card"}
    champion = models.by_alias("etl-model", "champion")
    assert champion
    report = lake.read_json(lake.report("weekly_etl", run.run_id, "run.json"))
    assert (report["outcome"], report["rows"]["used"]) == ("promoted", 121)
    (batch_id,) = report["batches"]
    batch = claims.read_batch(batch_id)
    assert batch
    assert (batch.origin, batch.files[0].key) == ("weekly_etl", "weekly_etl/2026-W01.parquet")
    life = lifecycle.read(batch_id)
    assert (life.state, life.run_id) == ("used", run.run_id)
    assert life.number == 2, "from the first moment this run's, and then used: no event starts a second training"
    week = facts(0)
    assert week["merge"] | {"contradictions": 0} == {
        "new": 121, "changed": 0, "known": 0, "contradicted": 1, "contradictions": 0
    }  # fmt: skip
    assert week["quality"]["left_out"] == {"missing": 1}
    by_name = {file["name"]: file for file in week["files"]}
    assert by_name["a.csv"]["by_rule"] == {"label_missing": 1}
    assert "broken.xlsx" in by_name
    assert by_name["broken.xlsx"]["reason"]
    assert (week["predictions"]["texts"], week["predictions"]["version"]) == (2, champion.version)
    assert by_name["texts.csv"]["by_rule"] == {"text_empty": 1}
    with etl.engine.connect() as connection:
        predicted = connection.execute(sa.text("SELECT text, label FROM weekly_predictions ORDER BY text")).fetchall()
    assert [row.text for row in predicted] == ["refund", "where is my card"]
    assert {row.label for row in predicted} <= {"card", "refund"}
    assert lake.exists(week["predictions"]["uri"])
    page = lake.read_bytes(lake.report("weekly_etl", run.run_id, "week.html")).decode()
    assert "Promoted" in page
    assert "where is my card 1" in page
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|from (https?|s?ftp)://\S+', "", page), "it asks nobody"
    assert lake.exists(lake.report("weekly_etl", run.run_id, "labels.png"))
    with etl.engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
    assert not [name for name in names if name.startswith("etl_")], "the run's own tables are gone"


def test_three_weeks_that_are_done_later_come_to_the_same_table_as_in_time_and_done_again_change_nothing(
    etl: Etl,
) -> None:
    etl.empty()
    one, two, three = (
        {"where is my card": "card", "a refund please": "refund", "lost it": "card"},
        {"where is my card": "delivery", "cancel my order": "order"},
        {"a refund please": "money", "Where is  my card": "card"},
    )
    for number, rows in enumerate((one, two, three)):
        etl.write(number, "ftp", f"{number}.csv", rows)
        run = etl.run(number)
        assert run.state == "success"
    live = etl.table()
    assert {row.text.lower(): (row.label, row.label_version) for row in live} == {
        "a refund please": ("money", 2), "cancel my order": ("order", 1), "lost it": ("card", 1),
        "where is  my card": ("card", 3),
    }  # fmt: skip
    assert facts(2)["merge"]["changed"] == 2
    assert etl.run(2).state == "success"
    assert etl.table() == live
    etl.forget()
    lake.filesystem(lake.root()).rm(f"{lake.root()}/raw", recursive=True)
    for number in range(3):
        etl.run(number)
    assert etl.table() == live
    assert facts(1)["label_drift"] > 0


@pytest.mark.parametrize(("rule", "label"), [("newest", "c"), ("majority", "b"), ("trusted", "a")])
def test_contradicting_labels_are_settled_by_the_rule_that_is_set(etl: Etl, rule: str, label: str) -> None:
    etl.forget()
    said = [("a", "desk", 1, 1), ("b", "site", 0, 2), ("b", "shop", 0, 3), ("c", "shop", 0, 4)]
    rows = [("1f", "the text", label, source, f"2026-01-0{day}", trust, 1) for label, source, trust, day in said]
    curating.write_rows("etl_curated_x", iter([rows]))
    curating.settle("etl_curated_x", "etl_changes_x", "2026-W01", ["desk", "site", "shop"], rule)
    found = curating.changes_of("etl_changes_x")
    assert {name: found[name] for name in ("new", "changed", "known", "contradicted")} == {
        "new": 1, "changed": 0, "known": 0, "contradicted": 1
    }  # fmt: skip
    given = ["a (desk, 2026-01-01)", "b (site, 2026-01-02)", "b (shop, 2026-01-03)", "c (shop, 2026-01-04)"]
    assert found["contradictions"] == [{"text": "the text", "label": label, "given": given}]


def test_a_week_with_nothing_new_trains_nothing_and_is_reported(etl: Etl) -> None:
    etl.empty()
    etl.write(0, "ftp", "a.csv", {"the text": "a", "another": "b"})
    assert states(etl.run(0))["export_dataset"] == "success"
    run = etl.run(1)
    found = states(run)
    assert run.state == "success"
    assert (found["export_dataset"], found["train_model"], found["generate_report"]) == (
        "skipped",
        "skipped",
        "success",
    )
    assert facts(1)["headline"] == "Nothing trained"


def test_a_source_that_fails_is_tried_again_once_after_five_minutes_and_then_a_mail_is_sent(
    etl: Etl, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Message

    mails: list[Any] = []

    class Inbox(Message):
        def handle_message(self, message: Any) -> None:
            mails.append(message)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(Inbox(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        smtp = {"HOST": "127.0.0.1", "PORT": str(port), "STARTTLS": "False", "MAIL_FROM": "airflow@example.com"}
        for name, value in smtp.items():
            monkeypatch.setenv(f"AIRFLOW__SMTP__SMTP_{name}", value)
        monkeypatch.setenv("BERT_ALERT_EMAILS", "ada@example.com")
        settings.cache_clear()
        etl.empty()
        etl.write(0, "sftp", "b.csv", {"a refund please": "refund"})
        (etl.http.folder / "site.jsonl").unlink()
        run = etl.run(0)
        assert etl.dag().get_task("merge").retry_delay == timedelta(minutes=5)
    finally:
        server.stop()
        monkeypatch.undo()
        settings.cache_clear()
    assert run.state == "failed"
    tried = {
        ti.map_index: (ti.state, ti.try_number) for ti in run.get_task_instances() if ti.task_id == "download_data"
    }
    assert tried == {0: ("success", 1), 1: ("success", 1), 2: ("failed", 2), 3: ("success", 1)}
    assert states(run)["generate_report"] == "upstream_failed"
    (mail,) = mails
    assert mail["To"] == "ada@example.com"
    assert "weekly_etl.download_data" in mail["Subject"]
    assert "404" in str(mail.get_payload(decode=False)[0].get_payload(decode=True))
    assert etl.landed("shop") == ["b.csv"], "what the others had is there for the next run"


def test_a_source_with_a_schedule_of_its_own_gets_a_dag_that_hands_its_batch_to_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly = {"name": "nightly", "kind": "folder", "path": "/x", "schedule": "0 22 * * *"}
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": [nightly]}))
    monkeypatch.setenv("BERT_SOURCES", str(path))
    settings.cache_clear()
    sources.week.cache_clear()
    dags = DagBag(DAGS / "weekly_etl.py", include_examples=False).dags
    settings.cache_clear()
    sources.week.cache_clear()
    assert set(dags) == {"weekly_etl", "weekly_etl_0_22_any_any_any"}
    weekly, nightly_dag = dags["weekly_etl"], dags["weekly_etl_0_22_any_any_any"]
    assert nightly_dag.timetable.summary == "0 22 * * *"
    assert set(weekly.task_ids) - set(nightly_dag.task_ids) == set(TRAINING.split("|"))
    assert (weekly.get_task("export_dataset").trains, nightly_dag.get_task("export_dataset").trains) == (True, False)
    order = [task.task_id for task in weekly.topological_sort()]
    named = ["download_data", "load_raw", "transform", "preprocess_data", "merge", "export_dataset", "train_model",
             "evaluate_model", "upload_model", "generate_report"]  # fmt: skip
    assert [one for one in order if one in named] == named
