"""The task that trains: one factory, so that no DAG knows where the trainer runs."""

import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException
from airflow.hooks.subprocess import SubprocessHook
from airflow.models import BaseOperator, Pool

from include import lake
from include.orchestration.defaults import GPU_POOL
from include.orchestration.submission import job_of
from include.settings import settings
from include.training.job import Job

logger = logging.getLogger(__name__)

PROJECT = Path(__file__).parents[2]
LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ")
STOP_SECONDS = 50  # less than [core] killed_task_cleanup_time, after which Airflow kills the task


def training_task(*, task_id: str, dataset_uri: str = "", job_uri: str = "", **kwargs: Any) -> BaseOperator:
    """A task that trains on a snapshot with the run's params and returns the URI of the trainer's result.json.

    With a ``job_uri`` it trains the job that lies there, whatever the params are. Both are templated. The backend is
    the setting ``BERT_TRAINING_BACKEND``.
    """
    arguments = {"task_id": task_id, "dataset_uri": dataset_uri, "job_uri": job_uri, "pool": GPU_POOL} | kwargs
    if settings().training_backend == "local":
        return LocalTraining(**arguments)
    from include.orchestration.pod_operator import PodTraining

    return PodTraining(**arguments)


def provide_training_pool() -> None:
    """Creates the pool of training tasks with one slot if nobody has: Airflow lets tasks wait for it without a word."""
    if Pool.get_pool(GPU_POOL) is None:
        logger.warning("there is no pool %s: creating it with one slot, so one training runs at a time", GPU_POOL)
        Pool.create_or_update_pool(GPU_POOL, slots=1, description="Training runs at once", include_deferred=False)


class LocalTraining(BaseOperator):
    """Runs the trainer as a process of the worker; its output is the task's log."""

    template_fields: Sequence[str] = ("dataset_uri", "job_uri")

    def __init__(self, *, dataset_uri: str, job_uri: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset_uri = dataset_uri
        self.job_uri = job_uri

    @cached_property
    def hook(self) -> SubprocessHook:
        """Starts the process in a session of its own and streams its output."""
        return SubprocessHook()

    def execute(self, context: Any) -> str:
        """Submits the job, runs the trainer until it ends, and returns the result's URI."""
        config = settings()
        if self.job_uri:
            job = Job.model_validate(lake.read_json(self.job_uri))
        else:
            address = config.mlflow_tracking_uri
            job = job_of(context, self.task_id, self.dataset_uri, address, image=config.image, in_pod=False)
        command = [sys.executable, "-m", "include.training", job.submit(), "--stop-with-parent"]
        ended = self.hook.run_command(command, cwd=str(PROJECT))
        if ended.exit_code:
            raise AirflowException(failure(ended.exit_code, ended.output))
        return lake.job(job.job_id, "result.json")

    def on_kill(self) -> None:
        """Asks the trainer to stop and waits for its checkpoint, so that the next try does not meet it."""
        self.hook.send_sigterm()
        process = self.hook.sub_process
        if process is not None:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.log.warning("the trainer did not stop within %d s", STOP_SECONDS)


def failure(exit_code: int, last_line: str) -> str:
    """Why a trainer's process failed, and what to do about it; its last line says why if it ended by itself."""
    retry = "A retry goes on from the last checkpoint."
    if exit_code < 0:
        return (
            f"the trainer was killed by signal {-exit_code}, as for want of memory: a smaller batch_size or max_length "
            f"needs less. {retry}"
        )
    if exit_code in (130, 143):
        return f"the trainer was asked to stop and has saved a checkpoint (exit code {exit_code}). {retry}"
    said = LOG_PREFIX.sub("", last_line) or "it said nothing"
    return f"the trainer could not train the job (exit code {exit_code}): {said.rstrip('.')}. {retry}"
