from tests import airflow_home  # isort: skip  # before Airflow

from pathlib import Path
from typing import Any

import pytest

from include.settings import settings

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="session", params=["local", "kubernetes"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def bag(backend: str) -> Any:
    """The DAGs of each training backend."""
    from airflow.models import DagBag

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERT_TRAINING_BACKEND", backend)
        patch.setenv("BERT_POD_IMAGE", "registry.example.com/trainer:1")
        settings.cache_clear()
        bag = DagBag(DAGS, include_examples=False)
    settings.cache_clear()
    return bag


def pytest_sessionfinish() -> None:
    airflow_home.remove()
