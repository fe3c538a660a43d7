from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.settings import settings

pytest.register_assert_rewrite("tests.unit.registry_services", "tests.unit.model_servers")


@pytest.fixture
def file_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A lake in a local folder: the same code as against S3, without a server."""
    root = f"file://{tmp_path}/lake"
    monkeypatch.setenv("BERT_BUCKET", root)
    settings.cache_clear()
    yield root
    settings.cache_clear()


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Any:
    """In a folder, but where MLflow's server is asked: it takes models from S3 alone."""
    return request.getfixturevalue("in_s3" if "mlflow_server" in request.fixturenames else "in_folder")


@pytest.fixture
def set_env(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Sets BERT_* variables for one test: ``set_env(BERT_LABELS="a,b")``."""

    def apply(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield apply
    settings.cache_clear()
