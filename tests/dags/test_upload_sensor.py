"""What the listener waits for: keys, or with a queue messages."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.models import DagBag
from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.providers.amazon.aws.sensors.sqs import SqsSensor

from include.settings import Settings, settings

DAGS = Path(__file__).parents[2] / "dags"
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/bert-uploads"


@pytest.fixture
def listener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The listener's DAG with a setting for the queue."""
    monkeypatch.setenv("BERT_UPLOADS_QUEUE_URL", request.param)
    settings.cache_clear()
    bag = DagBag(DAGS / "s3_upload_listener.py", include_examples=False)
    settings.cache_clear()
    assert bag.import_errors == {}
    return bag.dags["s3_upload_listener"]


@pytest.mark.parametrize("listener", [""], indirect=True)
def test_without_a_queue_it_lists_incoming(listener: Any) -> None:
    task = listener.get_task("wait_for_upload")
    assert isinstance(task, S3KeySensor)
    assert task.bucket_key == "s3://bert/incoming/*"
    assert (task.wildcard_match, task.deferrable, task.soft_fail) == (True, True, True)
    assert task.timeout == timedelta(days=1).total_seconds()


@pytest.mark.parametrize("listener", [QUEUE], indirect=True)
def test_with_a_queue_it_waits_for_messages_and_nothing_else_changes(listener: Any) -> None:
    task = listener.get_task("wait_for_upload")
    assert isinstance(task, SqsSensor)
    assert task.sqs_queue == QUEUE
    assert task.deferrable
    assert not task.soft_fail, "a queue that cannot be read must not look like a day without uploads"
    assert task.timeout == 300
    assert task.retries == listener.get_task("claim_uploads").retries == 3
    assert task.downstream_task_ids == {"claim_uploads"}
    assert listener.get_task("claim_uploads").outlets


@pytest.mark.parametrize("value", ["arn:aws:sqs:us-east-1:123456789012:bert-uploads", "bert-uploads"])
def test_what_is_no_url_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BERT_UPLOADS_QUEUE_URL", value)
    with pytest.raises(ValueError, match="uploads_queue_url"):
        Settings()
