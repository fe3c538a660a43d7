"""The sensors that wait for objects in S3, without a worker: any upload, or the data that a run is to train on."""

import asyncio
import fnmatch
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.providers.amazon.aws.triggers.s3 import S3KeyTrigger
from airflow.triggers.base import TriggerEvent
from botocore.exceptions import ClientError, ParamValidationError

from include import lake, objects
from include.datasets.names import is_debris
from include.orchestration.waiting_sensor import TIMED_OUT
from include.settings import settings

# No waiting and no second try mends these. By the code that S3 answers; a HEAD has no body, so only its status.
REFUSALS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "that is no name of a bucket",
    "PermanentRedirect": "the bucket lies in another region (AWS_DEFAULT_REGION)",
    "AccessDenied": "Airflow's role lacks the right to list or read there (s3:ListBucket, s3:GetObject)",
    "AllAccessDisabled": "all access to the bucket is disabled",
    "Forbidden": "Airflow's role lacks the right to list or read there (s3:ListBucket, s3:GetObject)",
    "403": "Airflow's role lacks the right to list or read there (s3:ListBucket, s3:GetObject)",
    "InvalidAccessKeyId": "S3 does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
}
_CODE = re.compile(r"An error occurred \((\w+)\)")  # as botocore writes it, and a trigger hands it on


class DataKeySensor(S3KeySensor):
    """Waits for an object whose key matches ``bucket_key``; what programs leave beside their data is not waited for.

    The provider's own trigger cannot leave such keys out but by a regular expression, and then it lists whole buckets.
    """

    def poke(self, context: Any) -> bool:
        """Whether an object that is waited for is there now."""
        return self._found(self.hook) is not None

    def _found(self, hook: Any) -> str | None:
        bucket, pattern = hook.get_s3_bucket_key(self.bucket_name, self.bucket_key, "bucket_name", "bucket_key")
        listed = hook.iter_file_metadata(re.split(r"[\[*?]", pattern, maxsplit=1)[0], bucket)
        return next((item["Key"] for item in listed if is_awaited(item["Key"], pattern)), None)

    def _defer(self) -> None:
        bucket, pattern = self.hook.get_s3_bucket_key(self.bucket_name, self.bucket_key, "bucket_name", "bucket_key")
        self.defer(
            timeout=timedelta(seconds=self.timeout),
            trigger=DataKeyTrigger(
                bucket_name=bucket,
                bucket_key=pattern,
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
        )


class DataKeyTrigger(S3KeyTrigger):
    """Fires when ``DataKeySensor`` would find an object."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the triggerer finds this class."""
        return f"{type(self).__module__}.{type(self).__qualname__}", super().serialize()[1]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: success, or an error's message."""
        try:
            async with await self.hook.get_async_conn() as client:
                while not await self._is_there(client):
                    await asyncio.sleep(self.poke_interval)
            yield TriggerEvent({"status": "success"})
        except Exception as error:
            yield TriggerEvent({"status": "error", "message": str(error)})

    async def _is_there(self, client: Any) -> bool:
        async for item in self.hook.get_file_metadata_async(client, self.bucket_name, self.bucket_key):
            if is_awaited(item["Key"], self.bucket_key):
                return True
        return False


def is_awaited(key: str, pattern: str) -> bool:
    """Whether a key is data that a sensor with this pattern waits for."""
    return fnmatch.fnmatchcase(key, pattern) and not is_debris(key)


class TrainingDataSensor(DataKeySensor):
    """Waits for the data of a training run, and ends at once where waiting is in vain.

    A bucket or a right that is missing, and time that is up fail the task without another try: the run's note then says
    what was wrong.
    """

    def execute(self, context: Any) -> None:
        """Looks once, and then waits without a worker."""
        try:
            if not context["params"]["dataset_uri"] and _has_golden_rows(settings().model_name):
                return  # without new data the champion's is trained on again, however long ago it was uploaded
            super().execute(context)
            self._check_rights(context)
        except ClientError as error:
            self._fail_if_refused(error)
            raise
        except PermissionError as error:  # s3fs's word for it
            raise AirflowFailException(f"cannot read {lake.root()}: {REFUSALS['403']}. {error}") from error
        except ParamValidationError as error:
            raise AirflowFailException(f"{self._awaited}: {error}") from error

    def execute_complete(self, context: Any, event: dict[str, Any]) -> None:
        """Ends the waiting as the trigger says."""
        try:
            super().execute_complete(context, event)
            self._check_rights(context)
        except (AirflowException, ClientError) as error:
            self._fail_if_refused(error)
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Ends the waiting if its time is up."""
        if next_method == "__fail__" and (next_kwargs or {}).get("error") == TIMED_OUT:
            minutes = f"{self.timeout / 60:g} minutes (BERT_DATA_TIMEOUT_MINUTES)"
            if uri := context["params"]["dataset_uri"]:
                raise AirflowFailException(
                    f"nothing lay at {uri} within {minutes}. Is the address right? A folder ends in /, and only * is a "
                    "wildcard. When the data is there, start the run again."
                )
            raise AirflowFailException(
                f"nothing was uploaded within {minutes}, and no dataset_uri was given: put a labelled file into "
                "incoming/, or name one in dataset_uri."
            )
        return super().resume_execution(next_method, next_kwargs, context)

    @property
    def _awaited(self) -> str:
        return f"s3://{self.bucket_name}/{self.bucket_key}"

    def _check_rights(self, context: Any) -> None:
        """Raises ClientError if what was found may be listed but not read."""
        if context["params"]["dataset_uri"] and (key := self._found(self.hook)):
            self.hook.head_object(key, self.bucket_name)

    def _fail_if_refused(self, error: Exception) -> None:
        code = _CODE.search(str(error))
        if code and code[1] in REFUSALS:
            raise AirflowFailException(f"cannot wait for {self._awaited}: {REFUSALS[code[1]]}. {error}") from error


def _has_golden_rows(model_name: str) -> bool:
    """Whether there was data before; ``include.datasets.golden`` would bring pandas along."""
    return any(objects.exists(lake.golden(model_name, name)) for name in ("states/000001.json", "golden.json"))
