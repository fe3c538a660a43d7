import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from dev.stack import Stack
from include import objects
from include.settings import settings
from include.uploads import claims
from tests.scenarios.story import wait

__all__ = ["Bucket", "claimed", "fresh_stack", "serving", "wait"]


@contextmanager
def fresh_stack(overrides: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """A real stack without a past: PostgreSQL, S3, MLflow and Airflow with this project's DAGs.

    It does not lie in pytest's own folder: each new session closes that to other users, and PostgreSQL, where tests run
    as root, is one.
    """
    with tempfile.TemporaryDirectory(prefix="stack-") as folder, Stack(Path(folder), overrides).running() as stack:
        yield stack


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[str]:
    """The address of a server that runs for as long as the block, on a free port given to it by ``--port``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", *command, "--port", str(port)]
    with (folder / "log").open("w") as log, subprocess.Popen(arguments, stdout=log, stderr=log) as server:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The local stack's S3 server alone; one for all tests, since s3fs keeps the address it has first seen."""
    folder = tmp_path_factory.mktemp("s3")
    with serving(folder, "dev.s3_server", "--data", str(folder / "s3.sqlite")) as address:
        yield address


class Bucket:
    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name

    def put(self, name: str, content: bytes = b"text,label\na,x\n") -> None:
        self.client.put_object(Bucket=self.name, Key=f"incoming/{name}", Body=content)

    def incoming(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix="incoming/").get("Contents", [])
        return [item["Key"].removeprefix("incoming/") for item in listed]


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    bucket = f"bucket{abs(hash(request.node.name))}"
    environment = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BERT_BUCKET": bucket,
        "BERT_UPLOAD_SETTLE_SECONDS": "0",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    yield Bucket(client, bucket)
    settings.cache_clear()


def claimed() -> dict[str, bytes]:
    """What lies in sealed batches, by name; fails if an upload is in two."""
    files = [file for batch in claims.waiting_batches() for file in batch.files]
    assert len({(file.key, file.etag) for file in files}) == len(files), "an upload was claimed twice"
    return {file.key.removeprefix("incoming/"): objects.read_bytes(file.uri) for file in files}
