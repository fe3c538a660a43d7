import os
import shutil
import tempfile

# Before Airflow is first imported: a home of its own, no examples, and names that never resolve to anything real.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"] = "False"
os.environ["AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY"] = "True"
os.environ["AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES"] = "airflow.* astro.*"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

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
    shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)
