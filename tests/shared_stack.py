"""The one stack that tests of several folders share: each finds in it what the others have left.

``tests/conftest.py`` loads this for the whole session. What takes long to import is imported when it is asked for.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dev.stack import Stack
    from tests.scenarios.story import Story

UP: "list[Stack]" = []


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a model that learns the made-up messages within seconds."""
    from dev import sample_data
    from tests.scenarios.small_bert import save_small_bert

    texts = sample_data.messages(sample_data.MADE_UP_ROWS)["text"].tolist()
    folder = save_small_bert(tmp_path_factory.mktemp("small-bert"), texts)
    return {"BERT_BASE_MODEL": str(folder), "BERT_LEARNING_RATE": "1e-3", "BERT_EPOCHS": "2", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def stack(small_bert: dict[str, str]) -> "Iterator[Stack]":
    """The stack that all tests share which do not need one of their own; they find what others have left in it."""
    from tests.scenarios.conftest import fresh_stack

    quick = {
        "BERT_UPLOAD_SETTLE_SECONDS": "0",
        "BERT_BATCHES_LOOK_SECONDS": "20",  # each look is a task, and takes seconds of a core
        "BERT_UPLOAD_RETRY_MINUTES": "0.05",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3600",  # no DAG file changes
    }
    with fresh_stack(small_bert | quick) as stack:
        UP.append(stack)
        yield stack


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stops it after the last test that uses it: idle it would go on taking CPU from all others."""
    if UP and "stack" not in getattr(nextitem, "fixturenames", ()):
        UP.pop().down()


@pytest.fixture(scope="session")
def told(stack: "Stack") -> dict[str, Any]:
    """The shared stack's past, and what the demo writes to demo.json: its stories are told."""
    from rich.console import Console

    from dev import demo
    from tests.scenarios.story import uploads

    return demo.run(stack, uploads(), Console())


@pytest.fixture(scope="session")
def story(stack: "Stack", told: dict[str, Any]) -> "Story":
    """The shared stack in a user's hands, after the stories: there is a champion and a golden set."""
    from tests.scenarios.story import Story

    return Story(stack)
