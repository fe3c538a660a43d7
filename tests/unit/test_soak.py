"""`make soak`, short: the server's process is killed, S3 is away, MLflow says nothing, and champions change."""

import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import Engine as Database

from dev.soak import FOLLOWS_WITHIN, Program, Soak, champions_at
from dev.state import Ports
from include import lake, objects
from tests.unit.registry_services import MlflowServer, Registry, S3Server

pytest_plugins = ["tests.unit.registry_services"]


def test_who_may_answer_is_who_was_champion_or_could_not_be_followed_yet() -> None:
    moves = [(0.0, 1.0, "1"), (50.0, 51.0, "2")]
    assert champions_at(moves, 40, 41) == {"1"}
    assert champions_at(moves, 51 + FOLLOWS_WITHIN, 70) == {"1", "2"}
    assert champions_at(moves, 52 + FOLLOWS_WITHIN, 70) == {"2"}
    away = [(55.0, 80.0)]
    assert champions_at(moves, 80 + FOLLOWS_WITHIN, 95, away) == {"1", "2"}
    assert champions_at(moves, 81 + FOLLOWS_WITHIN, 95, away) == {"2"}
    assert champions_at(moves, 81 + FOLLOWS_WITHIN, 95, [(100.0, 101.0)]) == {"2"}, "an outage later excuses nothing"


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_server: MlflowServer) -> str:
    return mlflow_server.uri


@pytest.mark.nightly
def test_every_request_is_answered_and_every_answer_logged_once_whatever_dies(
    services: None,
    registry: Registry,
    engine: Database,
    mlflow_server: MlflowServer,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = Ports.free().serving
    url = f"http://127.0.0.1:{port}"
    command = ["-m", "include.serving", "--port", str(port), "--cache", str(tmp_path / "cache")]
    serving = Program("serving", command, f"{url}/live", tmp_path)

    def s3_away() -> None:
        s3.stop()
        time.sleep(1.5)
        s3.start()

    def mlflow_frozen() -> None:
        server = psutil.Process(mlflow_server.process.pid)
        all_of_it = [server, *server.children(recursive=True)]
        for process in all_of_it:
            process.suspend()
        time.sleep(1.5)
        for process in all_of_it:
            process.resume()

    monkeypatch.setenv("BERT_MODEL_NAME", registry.name)
    source = objects.upload(registry.source, lake.job("soak", "model"))
    soak = Soak(serving, url, registry.name, source, engine)
    try:
        found = soak.ask(1000, [soak.promote, s3_away, soak.roll_back, soak.kill, soak.promote, mlflow_frozen])
    finally:
        serving.end()
    assert found.problems == []
    assert (found.requests >= 1000, found.kills) == (True, 1)
    assert found.by_status[200] > 900
