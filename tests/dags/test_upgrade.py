"""What the project left before golden sets grew, gone on with: its bucket, registry and ledger (old_deployment/)."""

import io
import lzma
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from airflow import DAG
from airflow.exceptions import AirflowFailException
from airflow.models import DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import golden, snapshots
from include.datasets.sides import Side
from include.orchestration import (
    intake_steps,
    promotion_steps,
    reconciling,
    reproduction,
    rollback,
    settling,
    submission,
)
from include.registry import ledger, models
from include.settings import settings
from include.training import train
from include.training.stopping import StopRequest
from include.uploads import claims, lifecycle
from tests.unit.registry_services import as_connection, deployment

pytest_plugins = ["tests.unit.registry_services"]

LEFT = Path(__file__).parent / "old_deployment"
DAG_ID, MODEL, BUCKET = "bert_model_training_pipeline", "bert-classifier", "upgrade"
TOPICS = {"card": "card stolen", "refund": "refund money", "delivery": "parcel late"}
FILLERS = ("please", "could", "you", "tell", "me", "about", "the", "thing", "that", "i", "have", "with", "today")


@dataclass
class Deployment:
    """What was left, restored: the ledger's database, and the golden and training texts as they were then."""

    engine: Engine
    golden: pd.DataFrame
    trained: dict[str, pd.DataFrame]  # by version
    entered: list[ledger.Entry]  # as the table was

    def run(self, kind: DagRunType, **params: Any) -> dict[str, Any]:
        """A run of the training pipeline, task by task; its decision."""
        at = datetime.now(UTC)
        run_id = f"{kind.value}__{at.isoformat()}"
        with create_session() as session:
            dag = DAG(DAG_ID, start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None)
            dag_run = dag.create_dagrun(
                run_id=run_id, run_type=kind, state="running", execution_date=at, data_interval=(at, at),
                session=session,
            )  # fmt: skip
            session.expunge_all()
        tunables = {"epochs": 3, "learning_rate": 5e-3, "batch_size": 16, "max_length": 32, "seed": 3}
        asked = {"dataset_uri": None, "base_model": f"models:/{MODEL}@champion", **tunables, **params}
        taken = intake_steps.validate(dag_run, asked)
        rows = pd.read_parquet(io.BytesIO(objects.read_bytes(taken["accepted_uri"])))
        dataset = intake_steps.preprocess(rows, run_id, taken["accepted_hash"])
        context = {"params": asked, "run_id": run_id}
        tracking = settings().mlflow_tracking_uri
        job = submission.job_of(context, "train_model", dataset["dataset_uri"], tracking, image="", in_pod=False)
        train.run(job, job.submit().rsplit("/", 1)[0], StopRequest())
        evaluated = promotion_steps.evaluate_challenger(dag_run, lake.job(job.job_id, "result.json"))
        decided = promotion_steps.decide_on_challenger(dag_run, evaluated)
        with create_session() as session:
            session.query(DagRun).filter(DagRun.run_id == run_id).update({"state": "success"})
        return {**decided, **dataset, "run_id": run_id}


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The registry: its database, and no server before it, which would take as long as all the rest."""
    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, lzma.open(LEFT / "mlflow.sql.xz", "rt") as dump:
        database.executescript(dump.read())
    return f"sqlite:///{file}"


@pytest.fixture(scope="module")
def warehouse(engine: Engine) -> Iterator[Engine]:
    """The ledger, in a database of its own."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE DATABASE upgrade"))
    restored = sa.create_engine(engine.url.set(database="upgrade"))
    with restored.begin() as connection:
        connection.connection.cursor().execute((LEFT / "warehouse.sql").read_text())
    yield restored
    restored.dispose()


@pytest.fixture(scope="module")
def old(mlflow_uri: str, s3_url: str, warehouse: Engine) -> Iterator[Deployment]:
    values = {
        "MLFLOW_TRACKING_URI": mlflow_uri, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "AWS_ENDPOINT_URL": s3_url,
        "BERT_BUCKET": BUCKET, "BERT_UPLOAD_SETTLE_SECONDS": "0",
        "AIRFLOW_CONN_WAREHOUSE": as_connection(warehouse.url),
    }  # fmt: skip
    initdb(load_connections=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with deployment(**values):
        restore_objects()
        entered = entries_as_they_were(warehouse)
        trained = {one.version: snapshots.read(one.dataset_id) for one in entered}
        golden_set = golden.read(MODEL)
        assert golden_set is not None
        yield Deployment(warehouse, golden_set.rows, trained, entered)
    with create_session() as session:
        session.query(DagRun).delete()
    torch.set_num_threads(threads)


def restore_objects() -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="mlflow")  # of it only its pages were there
    with tarfile.open(LEFT / "bucket.tar.xz") as archive:
        for one in archive:
            content = archive.extractfile(one)
            assert content is not None
            client.put_object(Bucket=BUCKET, Key=one.name, Body=content.read())


def entries_as_they_were(engine: Engine) -> list[ledger.Entry]:
    """Without the code of today that reads the table, and adds to it."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM promotion_ledger ORDER BY seq"))
        return [ledger.Entry.model_validate(dict(row._mapping)) for row in rows]


def messages(n: int, start: int) -> bytes:
    rows = ["text,label"]
    for at in range(start, start + n):
        label = list(TOPICS)[at % 3]
        words = [FILLERS[at % 13], FILLERS[at // 13], *TOPICS[label].split(), "now", "today"]
        rows.append(f"{' '.join(words)},{label}")
    return "\n".join(rows).encode()


def upload(name: str, content: bytes) -> None:
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"incoming/{name}", Body=content)
    assert claims.claim_uploads(claims.batch_id_of("20261203T000000", name))


def state() -> golden.GoldenSet:
    found = golden.read(MODEL)
    assert found is not None
    return found


def champion() -> str:
    found = models.by_alias(MODEL, models.CHAMPION)
    assert found is not None
    return found.version


@pytest.fixture(scope="module")
def gone_on(old: Deployment) -> dict[str, Any]:
    """The first run of today's code: with the upload that waited, one that was not claimed yet, and a new one."""
    upload("new.csv", messages(120, 0))
    return old.run(DagRunType.DATASET_TRIGGERED)


def test_nothing_of_it_is_found_odd(old: Deployment) -> None:
    assert reconciling.reconcile(MODEL) == []
    assert [(one.verb, one.version) for one in old.entered] == [("promote", "1"), ("promote", "2"), ("reject", "3")]
    assert ledger.entries(old.engine, MODEL)[::-1] == old.entered
    assert champion() == "2"
    assert reproduction.origin(MODEL, "2").job.job_id == old.entered[1].job_id


def test_the_next_challenger_is_judged_by_the_frozen_rows_and_goes_live(
    old: Deployment, gone_on: dict[str, Any]
) -> None:
    assert (gone_on["outcome"], gone_on["version"], champion()) == ("promoted", "4", "4")
    evaluation = objects.read_json(lake.report(DAG_ID, gone_on["run_id"], "evaluation.json"))
    assert evaluation["established"]["rows"] == len(old.golden)
    assert (evaluation["context"]["champion_version"], evaluation["context"]["anchor_version"]) == ("2", "")
    report = objects.read_json(lake.report(DAG_ID, gone_on["run_id"], "run.json"))
    assert {file["key"]: file["used"] > 0 for file in report["files"]} == dict.fromkeys(
        ["incoming/waits.csv", "incoming/lies.csv", "incoming/new.csv"], True
    )
    assert {str(lifecycle.read(batch_id).state) for batch_id in report["batches"]} == {"used"}


def test_golden_rows_stay_golden_and_what_was_ever_trained_on_stays_in_training(
    old: Deployment, gone_on: dict[str, Any]
) -> None:
    now, dataset = state(), snapshots.read(gone_on["dataset_id"])
    kept = now.established.merge(old.golden[["text", "label"]], on=["text", "label"])
    assert len(kept) == len(old.golden)
    assert len(now.established) > len(old.golden), "golden rows of the new upload judge from now on"
    assert set(old.trained["2"]["text"]) <= set(dataset["text"])
    assert not set(dataset["text"]) & set(now.rows["text"])
    for version, rows in old.trained.items():
        assert set(now.sides.of(list(rows["text"])).tolist()) == {Side.TRAIN, Side.VALIDATION}, version
        assert not set(rows["text"]) & set(now.rows["text"]), "the rejected one's, too"


def test_the_ledger_goes_on_and_is_still_never_changed(old: Deployment, gone_on: dict[str, Any]) -> None:
    newest, *before = ledger.entries(old.engine, MODEL)
    assert before[::-1] == old.entered
    assert (newest.verb, newest.previous_champion, newest.facts) == ("promote", "2", {ledger.ANCHOR: "2"})
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), old.engine.begin() as connection:
        connection.execute(sa.text("UPDATE promotion_ledger SET reason = 'another'"))


def test_labels_that_are_all_merged_into_one_end_a_run_before_it_takes_anything(old: Deployment) -> None:
    with pytest.raises(AirflowFailException, match="leaves one label, 'all'; a classifier needs two"):
        old.run(DagRunType.MANUAL, label_mapping=dict.fromkeys(TOPICS, "all"))


def test_a_label_is_renamed_and_an_old_version_that_knows_the_old_name_comes_back(
    old: Deployment, gone_on: dict[str, Any]
) -> None:
    mapping = {"refund": "money back"}
    renamed = old.run(DagRunType.MANUAL, label_mapping=mapping)
    assert renamed["outcome"] == "promoted"
    assert (
        set(snapshots.read(renamed["dataset_id"])["label"]) == set(state().labels) == {"card", "money back", "delivery"}
    )
    entry = ledger.last_move(old.engine, MODEL)
    assert entry is not None
    assert entry.facts == {ledger.ANCHOR: "2", ledger.LABEL_MAPPING: mapping}, "a new name begins no new anchor"
    told = rollback.roll_back(MODEL, actor="test", reason="customers complain", to_version="2")
    everything = len(state().rows)
    assert f"version 2 is the champion again. It gets {everything} of {everything} golden rows right" in told
    assert champion() == "2"
    assert {*state().established["text"]} == {*old.golden["text"]}
    assert reconciling.reconcile(MODEL) == []


def test_what_was_set_aside_can_be_taken_back(old: Deployment) -> None:
    (batch_id,) = settling.readmit(old.entered[2].dag_run_id, "it was right")
    assert str(lifecycle.read(batch_id).state) == "released"
    assert [one.batch_id for one in claims.waiting_batches()] == [batch_id]
