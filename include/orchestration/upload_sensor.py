"""The sensor that waits for uploads: it lists ``incoming/``, or is woken by a queue that hears of it."""

from datetime import timedelta
from typing import Any

from airflow.exceptions import AirflowException, AirflowSkipException, TaskDeferralError
from airflow.models import BaseOperator
from airflow.providers.amazon.aws.sensors.sqs import SqsSensor
from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger
from airflow.utils import timezone
from botocore.exceptions import BotoCoreError, ClientError

from include import lake
from include.orchestration.defaults import AWS
from include.orchestration.key_sensor import DataKeySensor
from include.orchestration.waiting_sensor import TIMED_OUT
from include.settings import settings

LONGEST_RUN = timedelta(days=1)
LONG_POLL_SECONDS = 20  # SQS's longest; a message that arrives meanwhile is handed over at once
MESSAGES_AT_ONCE = 10  # SQS's most
DRAINED_REQUESTS = 100  # at most, before each wait


def upload_sensor(*, task_id: str) -> BaseOperator:
    """A task that waits for uploads; with the setting ``BERT_UPLOADS_QUEUE_URL`` for messages about them."""
    config = settings()
    arguments = {
        "task_id": task_id,
        "deferrable": True,
        "aws_conn_id": AWS,
        "poke_interval": config.upload_poll_seconds,
    }
    if config.uploads_queue_url:
        return UploadQueueSensor(
            sqs_queue=config.uploads_queue_url,
            max_messages=MESSAGES_AT_ONCE,
            wait_time_seconds=LONG_POLL_SECONDS,
            timeout=config.uploads_look_seconds,
            **arguments,
        )
    return IncomingSensor(
        bucket_key=lake.incoming("*"),
        wildcard_match=True,
        timeout=LONGEST_RUN.total_seconds(),
        soft_fail=True,
        **arguments,
    )


class IncomingSensor(DataKeySensor):
    """Waits until something lies in ``incoming/``, or a batch wants the listener: one whose run failed, for example.

    As long as a batch is open it looks after them every ``BERT_BATCHES_LOOK_SECONDS``, in the same run of the listener.
    """

    def execute(self, context: Any) -> None:
        """Returns if there is something to do; otherwise waits for an upload."""
        from include.orchestration.listening import due, look_seconds

        if due() or self.poke(context):
            return
        if timezone.utcnow() - context["ti"].start_date > LONGEST_RUN:
            raise AirflowSkipException(f"no upload in {LONGEST_RUN}; the next run goes on waiting")
        self.timeout = look_seconds(LONGEST_RUN.total_seconds())
        self._defer()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Looks again if the wait ended without an upload."""
        if next_method == "__fail__" and (next_kwargs or {}).get("error") == TIMED_OUT:
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)


class UploadQueueSensor(SqsSensor):
    """Waits until something lies in ``incoming/``; a message is only what wakes it.

    It looks there itself: before it waits at all, after each message, and after ``timeout`` seconds without one; sooner
    while a batch is open, which it looks after as ``IncomingSensor`` does. So a message may be missing, late, repeated,
    or deleted by a task that fails afterwards: no upload depends on it. What a claim has left behind, because it may
    still be written, is found by the next run's first look. A queue that cannot be read fails the task, after the look,
    so that its retries still find uploads.
    """

    def execute(self, context: Any) -> None:
        """Returns if there is something to claim; otherwise waits for a message."""
        self._look_or_wait(context)

    def execute_complete(self, context: Any, event: Any = None) -> None:
        """After messages, whose content does not matter."""
        self._look_or_wait(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Looks again if the wait ended without a message; fails if the trigger did."""
        reason = next_kwargs or {}
        if next_method == "__fail__" and reason.get("error") == TIMED_OUT:
            self.log.info("no message in %.0f s: looking at incoming/ without one", self.timeout)
            return self._look_or_wait(context)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralError as error:
            raise self._unreadable((reason.get("traceback") or [error])[-1]) from error

    def _look_or_wait(self, context: Any) -> None:
        from include.orchestration.listening import due, look_seconds
        from include.uploads.claims import has_uploads

        if has_uploads() or due():
            return
        self._drain()
        if has_uploads():
            return
        if timezone.utcnow() - context["ti"].start_date > LONGEST_RUN:
            raise AirflowSkipException(f"no upload in {LONGEST_RUN}; the next run goes on waiting")
        self.defer(
            trigger=SqsSensorTrigger(
                sqs_queue=self.sqs_queue,
                aws_conn_id=self.aws_conn_id,
                max_messages=self.max_messages,
                wait_time_seconds=self.wait_time_seconds,
                waiter_delay=int(self.poke_interval),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=look_seconds(self.timeout)),
        )

    def _drain(self) -> None:
        """Deletes the messages there are: what they tell of was there before them, so the next look sees it.

        After a thousand uploads that were claimed together, a thousand messages would each wake a task.
        """
        try:
            for _ in range(DRAINED_REQUESTS):
                answer = self.hook.conn.receive_message(
                    QueueUrl=self.sqs_queue, MaxNumberOfMessages=MESSAGES_AT_ONCE, WaitTimeSeconds=0
                )
                if not (messages := answer.get("Messages")):
                    return
                entries = [{"Id": f"{at}", "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(messages)]
                self.hook.conn.delete_message_batch(QueueUrl=self.sqs_queue, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: object) -> AirflowException:
        return AirflowException(f"cannot read the queue {self.sqs_queue} (BERT_UPLOADS_QUEUE_URL): {error}".strip())
