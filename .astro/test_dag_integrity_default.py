"""Imports every DAG as `astro dev parse` does: in the image, with no environment, no connection and no service.

The CLI lets a DAG read variables that are not set here, so ``os.getenv`` answers with a placeholder; the project reads
its settings through ``include.settings`` and must not mind.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("BERT_ENVIRONMENT", "local")  # else Airflow would want the keys that a deployment has

from airflow.models import DagBag

HERE = Path(__file__).parent
IGNORED = {
    line.strip()
    for line in (HERE / "dag_integrity_exceptions.txt").read_text().splitlines()
    if not line.startswith("#")
}


def placeholder(key, default=None):
    """What ``os.getenv`` answers while DAGs are imported."""
    if key in os.environ:
        return os.environ[key]
    return default if default is not None else f"MOCKED_{key.upper()}_VALUE"


def test_every_dag_file_imports(monkeypatch):
    """As `astro dev parse` runs it."""
    monkeypatch.setattr(os, "getenv", placeholder)
    bag = DagBag(HERE.parent / "dags", include_examples=False)
    errors = {file: error for file, error in bag.import_errors.items() if Path(file).name not in IGNORED}
    if errors:
        pytest.fail("\n\n".join(f"{file}\n{error}" for file, error in errors.items()))
    assert bag.dags
