import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A real stack, up for the whole session: PostgreSQL, S3, MLflow and Airflow with this project's DAGs.

    It does not lie in pytest's own folder: each new session closes that to other users, and PostgreSQL, where tests run
    as root, is one.
    """
    with tempfile.TemporaryDirectory(prefix="stack-") as folder, Stack(Path(folder)).running() as stack:
        yield stack
