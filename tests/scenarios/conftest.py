from collections.abc import Iterator

import pytest

from dev.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real stack, up for the whole session: PostgreSQL, S3, MLflow and Airflow with this project's DAGs."""
    with Stack(tmp_path_factory.mktemp("stack")).running() as stack:
        yield stack
