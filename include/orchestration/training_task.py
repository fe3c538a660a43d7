"""The task that trains: one factory, so that no DAG knows where the trainer runs."""

import logging
from collections.abc import Sequence
from typing import Any

from airflow.exceptions import AirflowException
from airflow.models import BaseOperator, Pool

from include import lake, objects
from include.orchestration.defaults import GPU_POOL
from include.orchestration.submission import job_of
from include.orchestration.trainer_process import TrainerProcess, failure
from include.orchestration.training_notebook import notebook_of
from include.settings import settings
from include.training.job import Job

logger = logging.getLogger(__name__)

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
        self.trainer: TrainerProcess | None = None

    def execute(self, context: Any) -> str:
        """Submits the job, runs the trainer or the notebook that is set until its end, and returns the result's URI."""
        config = settings()
        if self.job_uri:
            job = Job.model_validate(objects.read_json(self.job_uri))
        else:
            address = config.mlflow_tracking_uri
            job = job_of(context, self.task_id, self.dataset_uri, address, image=config.image, in_pod=False)
        self.trainer = TrainerProcess(job.submit(), notebook_of(context))
        exit_code, last_line = self.trainer.run(self.log.info)
        if exit_code:
            raise AirflowException(failure(exit_code, last_line))
        return lake.job(job.job_id, "result.json")

    def on_kill(self) -> None:
        """Asks the trainer to stop and waits for its checkpoint, so that the next try does not meet it."""
        if self.trainer and not self.trainer.stop(STOP_SECONDS):
            self.log.warning("the trainer did not stop within %d s", STOP_SECONDS)
