"""The task that trains: one factory, so that no DAG knows where the trainer runs."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.models import BaseOperator
from airflow.operators.bash import BashOperator

from include import lake
from include.orchestration.defaults import GPU_POOL
from include.settings import settings
from include.training.job import Hyperparameters, Job

PROJECT = Path(__file__).parents[2]
STOP_SECONDS = 50  # less than [core] killed_task_cleanup_time, after which Airflow kills the task


def training_task(*, task_id: str, dataset_uri: str, **kwargs: Any) -> BaseOperator:
    """A task that trains on a snapshot with the run's params and returns the URI of the trainer's result.json.

    ``dataset_uri`` is templated. The backend is the setting ``BERT_TRAINING_BACKEND``.
    """
    backend = settings().training_backend
    if backend != "local":
        raise NotImplementedError(f"BERT_TRAINING_BACKEND={backend}: this version trains with 'local' only")
    return LocalTraining(task_id=task_id, dataset_uri=dataset_uri, **({"pool": GPU_POOL} | kwargs))


def job_of(params: dict[str, Any], dataset_uri: str, run_name: str) -> Job:
    """The job that a run's params ask for."""
    config = settings()
    return Job(
        dataset_uri=dataset_uri,
        model_name=config.model_name,
        base_model=params["base_model"],
        hyperparameters=Hyperparameters(
            early_stopping_patience=config.early_stopping_patience,
            **{name: params[name] for name in Hyperparameters.model_fields if name in params},
        ),
        mlflow_tracking_uri=config.mlflow_tracking_uri,
        mlflow_experiment=config.model_name,
        mlflow_run_name=run_name,
    )


class LocalTraining(BashOperator):
    """Runs the trainer as a process of the worker; its output is the task's log."""

    template_fields: Sequence[str] = ("dataset_uri",)

    def __init__(self, *, dataset_uri: str, **kwargs: Any) -> None:
        super().__init__(bash_command="set by execute", cwd=str(PROJECT), append_env=True, **kwargs)
        self.dataset_uri = dataset_uri

    def execute(self, context: Any) -> str:
        """Submits the job, runs the trainer until it ends, and returns the result's URI."""
        job = job_of(context["params"], self.dataset_uri, context["run_id"])
        command = [sys.executable, "-m", "include.training", job.submit(), "--stop-with-parent"]
        self.bash_command = f"exec {shlex.join(command)}"
        super().execute(context)
        return lake.job(job.job_id, "result.json")

    def on_kill(self) -> None:
        """Asks the trainer to stop and waits for its checkpoint, so that the next try does not meet it."""
        super().on_kill()
        process = self.subprocess_hook.sub_process
        if process is not None:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.log.warning("the trainer did not stop within %d s", STOP_SECONDS)
