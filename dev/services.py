"""The stack's programs: how each is run and how one sees that it is healthy."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dev import postgres
from dev.environment import MLFLOW_BUCKET
from dev.processes import Program
from dev.state import State

AIRFLOW = ("webserver", "triggerer", "scheduler")


def programs(state: State) -> list[Program]:
    """All programs of the stack; makes PostgreSQL's data folder if there is none."""
    command, user = postgres.prepare(state)
    return [
        # Killed, its children live on for seconds, and until then a new one cannot start.
        Program("postgres", command, user=user, stop_signal="INT", whole_group=False, start_retries=20),
        Program("s3", _s3_command(state), start_retries=20),
        Program("mlflow", _mlflow_command(state), start_seconds=10),
        Program("serving", _serving_command(state), start_seconds=10),
        Program("scheduler", _airflow("scheduler"), stop_seconds=60, start_seconds=10),
        Program("triggerer", _airflow("triggerer"), start_seconds=10),
        Program("webserver", _airflow("webserver"), start_seconds=10),
    ]


def health_checks(state: State) -> dict[str, Callable[[], bool]]:
    """A function for each program that says whether it is healthy now."""
    return {
        "postgres": lambda: postgres.is_ready(state),
        "s3": lambda: _s3_answers(state),
        "mlflow": lambda: _get(f"http://127.0.0.1:{state.ports.mlflow}/health") is not None,
        "serving": lambda: _get(f"http://127.0.0.1:{state.ports.serving}/live") is not None,
        "webserver": lambda: _airflow_component(state, "metadatabase"),
        "scheduler": lambda: _airflow_component(state, "scheduler"),
        "triggerer": lambda: _airflow_component(state, "triggerer"),
    }


def s3_client(environment: dict[str, str]) -> Any:
    """A boto3 client of the S3 server that this environment names."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"mode": "standard", "max_attempts": 5}, proxies={}),
    )


def create_buckets(environment: dict[str, str]) -> None:
    """Creates the buckets that are missing."""
    client = s3_client(environment)
    present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in sorted({environment["BERT_BUCKET"], MLFLOW_BUCKET} - present):
        client.create_bucket(Bucket=name)


def _s3_command(state: State) -> list[str]:
    files = ["--data", str(state.s3_file), "--faults", str(state.s3_faults)]
    return [sys.executable, "-m", "dev.s3_server", "--port", str(state.ports.s3), *files]


def _mlflow_command(state: State) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(state.ports.mlflow)]
    storage = ["--artifacts-destination", f"s3://{MLFLOW_BUCKET}"]
    return [sys.executable, "-m", "mlflow", "server", *address, *storage, "--workers", "1"]


def _serving_command(state: State) -> list[str]:
    address = ["--port", str(state.ports.serving), "--cache", str(state.folder / "serving")]
    return [sys.executable, "-m", "include.serving", *address]


def _airflow(component: str) -> list[str]:
    return [sys.executable, "-m", "dev.airflow", component]


def _s3_answers(state: State) -> bool:
    with suppress(BotoCoreError, ClientError):
        options = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
        config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5, proxies={})
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{state.ports.s3}", config=config, **options).list_buckets()
        return True
    return False


def _airflow_component(state: State, name: str) -> bool:
    answer = _get(f"http://127.0.0.1:{state.ports.airflow}/health")
    return bool(answer is not None and answer.json().get(name, {}).get("status") == "healthy")


def _get(url: str) -> httpx.Response | None:
    """The answer if it is a success; None if there is none."""
    with suppress(httpx.HTTPError):
        answer = httpx.get(url, timeout=5, trust_env=False)
        return answer if answer.is_success else None
    return None
