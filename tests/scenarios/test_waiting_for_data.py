"""What the pipeline's first task does about data that is there, comes, or never comes: real S3, a real trigger."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.exceptions import AirflowException, AirflowFailException, TaskDeferred
from airflow.utils import timezone
from airflow.utils.module_loading import import_string
from botocore.exceptions import ClientError

from include.orchestration.key_sensor import DataKeySensor, TrainingDataSensor
from include.orchestration.params import data_bucket, data_pattern, training_params
from include.orchestration.upload_sensor import upload_sensor
from include.orchestration.waiting_sensor import TIMED_OUT
from tests.scenarios.conftest import Bucket


@pytest.fixture
def waits(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Callable[..., "Waiting"]:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
    return lambda uri=None, **conf: Waiting(uri, conf)


class Waiting:
    """The task wait_for_data of one run, moved on as Airflow does it."""

    def __init__(self, uri: str | None, conf: dict[str, Any]) -> None:
        params = training_params()
        self.context = {
            "dag": SimpleNamespace(params=params),
            "dag_run": SimpleNamespace(conf=conf),
            "params": {name: param.value for name, param in params.items()} | {"dataset_uri": uri},
        }
        self.sensor: DataKeySensor = TrainingDataSensor(
            task_id="wait_for_data",
            bucket_name=data_bucket(uri),
            bucket_key=data_pattern(uri),
            wildcard_match=True,
            deferrable=True,
            poke_interval=0.05,
            timeout=120,
        )

    def defers(self) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as deferred:
            self.sensor.execute(self.context)
        return deferred.value

    def resumes(self, method: str, arguments: dict[str, Any]) -> None:
        self.sensor.resume_execution(method, arguments, self.context)


async def fired(deferred: TaskDeferred) -> Any:
    """The event of the trigger as the triggerer makes it."""
    path, arguments = deferred.trigger.serialize()
    trigger = import_string(path)(**arguments)
    async with asyncio.timeout(30):
        return (await anext(aiter(trigger.run()))).payload


def lay(s3: Bucket, key: str) -> str:
    s3.client.put_object(Bucket=s3.name, Key=key, Body=b"text,label\na,x\n")
    return f"s3://{s3.name}/{key}"


@pytest.mark.parametrize("key", ["mine/a [1].csv", "mine/a?.csv", "mine/[!a]/b.csv", "mine/deep/down/ü+%.csv"])
def test_data_that_is_there_is_found_whatever_its_name(s3: Bucket, waits: Any, key: str) -> None:
    uri = lay(s3, key)
    waits(uri).sensor.execute(waits(uri).context)
    folder = waits(uri.rsplit("/", 1)[0] + "/")
    folder.sensor.execute(folder.context)
    pattern = waits(f"s3://{s3.name}/mine/*.csv")
    pattern.sensor.execute(pattern.context)


def test_only_an_asterisk_is_a_wildcard(s3: Bucket, waits: Any) -> None:
    lay(s3, "mine/a1.csv")
    waits(f"s3://{s3.name}/mine/a[1].csv").defers()
    waits(f"s3://{s3.name}/mine/a?.csv").defers()


def test_data_that_comes_later_ends_the_waiting(s3: Bucket, waits: Any) -> None:
    waiting = waits(f"s3://{s3.name}/mine/")
    lay(s3, "mine/")
    lay(s3, "mine/_SUCCESS")
    lay(s3, "mine/.part-0.csv.crc")
    deferred = waiting.defers()
    assert deferred.timeout.total_seconds() == 120

    async def later() -> Any:
        event = asyncio.create_task(fired(deferred))
        await asyncio.sleep(0.3)
        assert not event.done(), "what programs leave beside their data is none"
        lay(s3, "mine/part-0.csv")
        return await event

    waiting.resumes(deferred.method_name, {"event": asyncio.run(later())})


def test_data_that_never_comes_fails_once_and_with_its_address(s3: Bucket, waits: Any) -> None:
    uri = f"s3://{s3.name}/tpyo/"
    with pytest.raises(AirflowFailException, match=f"nothing lay at {uri} within 2 minutes .BERT_DATA_TIMEOUT_MINUTES"):
        waits(uri).resumes("__fail__", {"error": TIMED_OUT})
    with pytest.raises(AirflowFailException, match=r"nothing was uploaded within 2 minutes .* dataset_uri"):
        waits().resumes("__fail__", {"error": TIMED_OUT})


def test_without_an_address_a_first_upload_is_waited_for_and_later_nothing(s3: Bucket, waits: Any) -> None:
    waits().defers()
    lay(s3, "golden/bert-classifier/golden.json")
    waiting = waits()
    waiting.sensor.execute(waiting.context)


def test_a_bucket_that_is_missing_is_named_at_once(s3: Bucket, waits: Any) -> None:
    waiting = waits("s3://no-such-bucket-here/mine/")
    with pytest.raises(AirflowFailException, match=r"s3://no-such-bucket-here/mine/\*: there is no such bucket"):
        waiting.sensor.execute(waiting.context)


@pytest.mark.parametrize("bucket", ["Not A Bucket", "x"])
def test_what_is_no_bucket_is_named_at_once(s3: Bucket, waits: Any, bucket: str) -> None:
    waiting = waits(f"s3://{bucket}/mine/")
    with pytest.raises(AirflowFailException, match=bucket):
        waiting.sensor.execute(waiting.context)


def test_a_bucket_that_goes_while_a_run_waits_ends_the_waiting(s3: Bucket, waits: Any) -> None:
    s3.client.create_bucket(Bucket=f"{s3.name}-gone")
    waiting = waits(f"s3://{s3.name}-gone/mine/")
    deferred = waiting.defers()
    s3.client.delete_bucket(Bucket=f"{s3.name}-gone")
    event = asyncio.run(fired(deferred))
    with pytest.raises(AirflowFailException, match="there is no such bucket"):
        waiting.resumes(deferred.method_name, {"event": event})


@pytest.mark.parametrize(("code", "operation"), [("AccessDenied", "ListObjectsV2"), ("403", "HeadObject")])
def test_a_right_that_is_missing_is_named_and_an_outage_is_tried_again(waits: Any, code: str, operation: str) -> None:
    waiting = waits("s3://theirs/mine/")

    def event(code: str) -> dict[str, Any]:
        error = ClientError({"Error": {"Code": code, "Message": "no"}}, operation)
        return {"event": {"status": "error", "message": str(error)}}

    with pytest.raises(AirflowFailException, match="lacks the right to list or read there"):
        waiting.resumes("execute_complete", event(code))
    with pytest.raises(AirflowException) as outage:
        waiting.resumes("execute_complete", event("SlowDown"))
    assert not isinstance(outage.value, AirflowFailException)


@pytest.mark.parametrize("name", ["_SUCCESS", "team a/.DS_Store", "x.csv.crc", "team_$folder$", "team a/"])
def test_what_programs_leave_wakes_no_listener(s3: Bucket, waits: Any, name: str) -> None:
    sensor: Any = upload_sensor(task_id="wait_for_upload")
    context = {"ti": SimpleNamespace(start_date=timezone.utcnow())}
    s3.put(name)
    with pytest.raises(TaskDeferred):
        sensor.execute(context)
    s3.put("team a/[odd] name?.csv")
    sensor.execute(context)
