import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.stack import Stack


def wait(condition: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    """The first value of a condition that is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.3)
    raise TimeoutError(f"no {what} within {seconds:.0f} s")


@contextmanager
def fresh_stack(overrides: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """A real stack without a past: PostgreSQL, S3, MLflow and Airflow with this project's DAGs.

    It does not lie in pytest's own folder: each new session closes that to other users, and PostgreSQL, where tests run
    as root, is one.
    """
    with tempfile.TemporaryDirectory(prefix="stack-") as folder, Stack(Path(folder), overrides).running() as stack:
        yield stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with fresh_stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The local stack's S3 server alone; one for all tests, since s3fs keeps the address it has first seen."""
    folder = tmp_path_factory.mktemp("s3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dev.s3_server", "--port", str(port), "--data", str(folder / "s3.sqlite")]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.terminate()
