"""The job's MLflow run: one however many attempts, fed from a thread so that a slow server never holds training up."""

import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from include import objects
from include.training.errors import TrainingError
from include.training.job import Job

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

# How long a server may take to answer when a job starts. With a task's four tries it may be away for a quarter of an
# hour, as MLflow's own client waits about four minutes for an answer.
START_SECONDS = 240.0
RETRY_SECONDS = 5.0
FINISH_SECONDS = 60.0  # how long the end of a job waits for metrics that are still under way
STOP_SECONDS = 8.0  # the same when asked to stop: the kill that follows SIGTERM is not far
MOST_METRICS = 1000  # MLflow's limit per request
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""By which MLflow's page shows an experiment as one of trained models, and not of agents and their traces."""


class Tracker:
    """Sends metrics to an MLflow run, in order and in batches; what cannot be sent now is sent later.

    Args:
        client: Of the tracking server.
        run_id: The run.
    """

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._queue: queue.Queue[list[Any] | str] = queue.Queue()
        self._thread = threading.Thread(target=self._send, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Queues metrics; returns at once and never fails."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._queue.put([Metric(name, float(value), now, step) for name, value in metrics.items()])

    def close(self, status: str) -> None:
        """Sends what is left and ends the run.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        self._queue.put(status)
        self._thread.join(STOP_SECONDS if status == "KILLED" else FINISH_SECONDS)
        if self._thread.is_alive():
            logger.warning("MLflow does not answer: run %s stays without its last metrics and its status", self.run_id)

    def _send(self) -> None:
        pending: list[Any] = []
        status = ""
        while not status or pending:
            status = status or self._collect(pending)
            try:
                while pending:
                    self._client.log_batch(self.run_id, metrics=pending[:MOST_METRICS])
                    del pending[:MOST_METRICS]
                if status:
                    self._client.set_terminated(self.run_id, status)
                    return
            except Exception as error:  # whatever is wrong with the server, training is not to end by it
                logger.warning("MLflow: %s; training goes on, metrics are sent again", str(error).splitlines()[0])
                time.sleep(RETRY_SECONDS)

    def _collect(self, pending: list[Any]) -> str:
        """Waits for something to send; the status, once that is in the queue."""
        item = self._queue.get() if not pending else []
        while True:
            if isinstance(item, str):
                return item
            pending.extend(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return ""


def start(job: Job, folder: str, rows: dict[str, int], facts: dict[str, Any]) -> Tracker:
    """Opens the job's MLflow run, the same one in every attempt.

    Args:
        job: The job.
        folder: Its folder, where the run's id is remembered.
        rows: Of each split; parameters, like the hyperparameters.
        facts: About this attempt; tags, since another attempt's machine may be another.

    Raises:
        TrainingError: the server does not answer, or refuses.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Param, RunTag
    from mlflow.exceptions import MlflowException

    _await_server(job.mlflow_tracking_uri)  # before mlflow's client, which says less, and later
    client = MlflowClient(job.mlflow_tracking_uri)
    params = {"job_id": job.job_id, "model_name": job.model_name, "base_model": job.base_model}
    params |= job.hyperparameters.model_dump() | {f"{split}_rows": count for split, count in rows.items()}
    try:
        run_id = _run_id(client, job, folder, _experiment_id(client, job.mlflow_experiment))
        client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in params.items()],
            tags=[RunTag(name, str(value)) for name, value in facts.items()],
        )
    except MlflowException as error:
        raise TrainingError(f"MLflow at {job.mlflow_tracking_uri} refuses the job's run: {error}") from error
    logger.info("MLflow run %s in experiment %s", run_id, job.mlflow_experiment)
    return Tracker(client, run_id)


def _run_id(client: "MlflowClient", job: Job, folder: str, experiment_id: str) -> str:
    """The run of an earlier attempt, running again, or a new one."""
    uri = f"{folder}/mlflow_run.json"
    if objects.exists(uri):
        run_id = str(objects.read_json(uri)["run_id"])
        if _reopen(client, run_id):
            return run_id
        objects.filesystem(uri).rm_file(uri)
    created = str(_create(client, job, experiment_id))
    if objects.create_json(uri, {"run_id": created}):
        return created
    client.delete_run(created)  # another attempt was faster
    return str(objects.read_json(uri)["run_id"])


def _reopen(client: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        logger.warning("the earlier attempt's MLflow run is gone (%s): opening another", error)
        return False
    return True


def _create(client: "MlflowClient", job: Job, experiment_id: str) -> str:
    dataset_id = job.dataset_uri.rstrip("/").rsplit("/", 1)[-1]
    tags = {"job_id": job.job_id, "dataset_id": dataset_id, "model_name": job.model_name}
    run = client.create_run(experiment_id, run_name=job.mlflow_run_name or job.job_id, tags=tags)
    return str(run.info.run_id)


def _experiment_id(client: "MlflowClient", name: str) -> str:
    """An experiment that takes runs: one that somebody deleted, which blocks its name, is restored with its runs."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, tags=EXPERIMENT_TAGS))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another job was faster
            if experiment is None:
                raise
    for key, value in EXPERIMENT_TAGS.items():
        if key not in experiment.tags:  # of an experiment that somebody else, or an earlier release, has made
            client.set_experiment_tag(experiment.experiment_id, key, value)
    if experiment.lifecycle_stage == "deleted":
        logger.warning("MLflow's experiment %s was deleted: it is restored. To have a new one, rename it first", name)
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _await_server(uri: str) -> None:
    """Waits until an http(s) server answers anything at all; other stores need no waiting."""
    if not uri.startswith(("http://", "https://")):
        return
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
            return
        except urllib.error.HTTPError:
            return  # it answers; what it allows shows when the run is opened
        except OSError as error:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"MLflow at {uri} does not answer ({error}): start it, or correct MLFLOW_TRACKING_URI"
                ) from error
            logger.warning("MLflow at %s does not answer yet (%s)", uri, error)
            time.sleep(min(RETRY_SECONDS, START_SECONDS))
