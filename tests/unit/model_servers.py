"""A model server at work in a thread, for tests that take it by ``pytest_plugins = ["tests.unit.model_servers"]``."""

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import uvicorn

from include import lake, objects
from include.serving.app import build
from include.serving.server import ModelServer
from include.settings.serving import ServingSettings
from tests.unit.registry_services import MlflowServer, Registry, deployment

pytest_plugins = ["tests.unit.registry_services"]


@dataclass
class Running:
    """A server at work, and a client of it."""

    server: ModelServer
    http: httpx.Client
    registry: Registry

    def predict(self, *texts: str, **more: Any) -> dict[str, Any]:
        answer = self.http.post("/predict", json={"texts": list(texts), **more}).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def wait_for_version(self, version: str) -> None:
        wait(lambda: self.http.get("/ready").json()["models"][self.registry.name]["version"] == version)

    def logged(self) -> list[dict[str, Any]]:
        """All rows of the prediction log, once nothing waits to be written."""
        wait(lambda: self.server.log.waiting_rows == 0)
        self.server.log._write()
        return logged(self.registry.name)


def logged(model: str) -> list[dict[str, Any]]:
    uris = objects.find(lake.predictions(model))
    return [row for uri in uris for row in pq.read_table(io.BytesIO(objects.read_bytes(uri))).to_pylist()]


def wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@contextmanager
def running(registry: Registry, cache: Path, **options: Any) -> Iterator[Running]:
    config = ServingSettings(cache=str(cache), look_seconds=0.1, log_seconds=0.1, **options)
    server = ModelServer(config, [registry.name])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        web = uvicorn.Server(uvicorn.Config(build(server), log_level="warning"))
        thread = threading.Thread(target=lambda: asyncio.run(web.serve(sockets=[listening])))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                wait(lambda: web.started)
                yield Running(server, http, registry)
        finally:
            web.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def shared_services(mlflow_server: MlflowServer, s3_url: str) -> Iterator[None]:
    with deployment(MLFLOW_TRACKING_URI=mlflow_server.uri, AWS_ENDPOINT_URL=s3_url, BERT_BUCKET="bert"):
        yield
