"""Which job a training task has: what its run asks for, pinned to what that meant when it was first asked for."""

import logging
from typing import Any

from airflow.exceptions import AirflowException

from include import lake, objects
from include.settings import settings
from include.training import provenance
from include.training.base_models import Kind, kind
from include.training.errors import TrainingError
from include.training.job import Hyperparameters, Job
from include.training.sources import newest_revision

logger = logging.getLogger(__name__)

SEEN_BY_THE_TRAINER = (Kind.HUB, Kind.PACKAGE, Kind.FOLDER)
"""Base models that a pod may have although whoever submits its job does not."""


def job_of(context: Any, task_id: str, dataset_uri: str, mlflow_tracking_uri: str, *, image: str, in_pod: bool) -> Job:
    """The job of a run's task, the same in every try: code or an alias that changes meanwhile begins no other job.

    Args:
        context: Of the task; its params are what is asked for.
        task_id: A run may train more than once.
        dataset_uri: Another one, as after a new champion, is another job.
        mlflow_tracking_uri: As the trainer reaches it.
        image: That the trainer runs in, if in any.
        in_pod: Whether it trains in another environment than this one.

    Raises:
        AirflowException: the base model is not where the run says.
    """
    asked = _asked_for(context["params"], dataset_uri, context["run_id"], mlflow_tracking_uri)
    pinned = lake.staging(context["run_id"], f"{task_id}.job.json")
    job = _earlier(pinned, asked)
    if job is None:
        job = _resolved(asked, image=image, in_pod=in_pod)
        objects.write_bytes(pinned, job.model_dump_json(indent=2).encode())
    return job.model_copy(update={"mlflow_tracking_uri": mlflow_tracking_uri})


def _asked_for(params: dict[str, Any], dataset_uri: str, run_name: str, mlflow_tracking_uri: str) -> Job:
    config = settings()
    return Job(
        dataset_uri=dataset_uri,
        model_name=config.model_name,
        base_model=params["base_model"],
        hyperparameters=Hyperparameters(
            early_stopping_patience=config.early_stopping_patience,
            **{name: params[name] for name in Hyperparameters.model_fields if name in params},
        ),
        mlflow_tracking_uri=mlflow_tracking_uri,
        mlflow_experiment=config.model_name,
        mlflow_run_name=run_name,
    )


def _earlier(pinned: str, asked: Job) -> Job | None:
    """The job of an earlier try that was asked for the same; also one that an earlier release has submitted."""
    if objects.exists(pinned):
        job = Job.model_validate(objects.read_json(pinned))
        return job if job.request_id == asked.request_id else None
    submitted = lake.job(asked.request_id, "job.json")
    if objects.exists(submitted):
        job = Job.model_validate(objects.read_json(submitted))
        return job if job.mlflow_run_name == asked.mlflow_run_name else None
    return None


def _resolved(asked: Job, *, image: str, in_pod: bool) -> Job:
    facts = {
        "dataset_hash": _dataset_hash(asked.dataset_uri),
        "base_model_revision": _revision(asked.base_model, in_pod=in_pod),
        "trainer_hash": provenance.trainer_hash(),
        "image": image,
        "versions": {} if in_pod else provenance.versions(),
    }
    return asked.model_copy(update=facts)


def _dataset_hash(dataset_uri: str) -> str:
    manifest = f"{dataset_uri.rstrip('/')}/manifest.json"
    return str(objects.read_json(manifest).get("dataset_id", "")) if objects.exists(manifest) else ""


def _revision(base_model: str, *, in_pod: bool) -> str:
    try:
        return newest_revision(base_model, settings().mlflow_tracking_uri)
    except TrainingError as error:
        # A pod may reach the hub, or have a token or a folder, where Airflow has not: it then pins what it finds.
        if in_pod and kind(base_model) in SEEN_BY_THE_TRAINER:
            logger.warning("%s. The pod is to look itself", error)
            return ""
        raise AirflowException(str(error)) from error
