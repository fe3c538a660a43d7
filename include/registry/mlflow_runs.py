"""What the pipeline adds to the trainer's MLflow run: the report, the golden scores, and links both ways."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from include.lake import slug
from include.markdown import plain
from include.settings import settings
from include.training.tracking import EXPERIMENT_TAGS

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from include.evaluation.evaluate import Context, Evaluation

logger = logging.getLogger(__name__)

FOLDER = "report"
DELETED, GONE = "deleted", "RESOURCE_DOES_NOT_EXIST"


def log_report(run_id: str, folder: Path, airflow_url: str, evaluation: "Evaluation") -> None:
    """Adds a report's files and the golden scores to a run, and to its description where it came from.

    A run that was deleted in MLflow is restored. One that is gone for good gets nothing: the report lies in the bucket.
    """
    client = _client()
    if not _is_there(client, run_id):
        logger.warning("MLflow's run %s was deleted for good; the report is in the bucket only", run_id)
        return
    client.log_artifacts(run_id, str(folder), FOLDER)
    metrics = evaluation.challenger.metrics
    client.log_metric(run_id, "golden_accuracy", metrics.accuracy)
    client.log_metric(run_id, "golden_macro_f1", metrics.macro_f1)
    client.set_tag(run_id, "airflow_run", airflow_url)
    if evaluation.context.challenger_version:
        client.update_run(run_id, name=_name(evaluation.context))
    see = f"[Evaluation report]({links(run_id)['report']}) · [Airflow run]({airflow_url})"
    client.set_tag(run_id, "mlflow.note.content", f"{plain(evaluation.reason)}\n\n{see}")


def _name(context: "Context") -> str:
    """What MLflow's list of runs is read by: the version, the data it learnt from, and the Airflow run."""
    return f"v{context.challenger_version} · data {context.dataset_id} · {context.dag_run_id}"


def log_page(model_name: str, dag_run_id: str, outcome: str, page: Path) -> str:
    """Keeps the report of a DAG run that trained nothing, in an experiment of its own; returns the page's address.

    A DAG run that is repeated gets the same MLflow run. Raises MlflowException if MLflow is not there, soon.
    """
    with _impatience():
        client, name, run = _client(), f"{model_name}-data", slug(dag_run_id)
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name, tags=EXPERIMENT_TAGS)
        if experiment and experiment.lifecycle_stage == DELETED:
            _restore_experiment(client, experiment_id)
        found = client.search_runs([experiment_id], f"tags.dag_run = '{run}'", max_results=1)
        run_id = (found[0] if found else client.create_run(experiment_id, run_name=dag_run_id)).info.run_id
        client.set_tag(run_id, "dag_run", run)
        client.set_tag(run_id, "outcome", outcome)
        client.log_artifact(run_id, str(page), FOLDER)
        client.set_terminated(run_id)
        return links(run_id)["report"]


@contextmanager
def _impatience() -> Iterator[None]:
    """Asks MLflow twice only: by default it is minutes, which other requests of this process are to go on waiting."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    before = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(2)
    try:
        yield
    finally:
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(before)


def links(run_id: str) -> dict[str, str]:
    """Addresses in MLflow's UI, of the report and of the run; none if the run was deleted for good."""
    from mlflow.exceptions import MlflowException

    try:
        experiment = _client().get_run(run_id).info.experiment_id
    except MlflowException as error:
        if error.error_code != GONE:
            raise
        return {}
    base = (settings().mlflow_public_url or settings().mlflow_tracking_uri).rstrip("/")
    run = f"{base}/#/experiments/{experiment}/runs/{run_id}"
    return {"report": f"{run}/artifacts/{FOLDER}/report.html", "MLflow run": f"{run}/model-metrics"}


def _is_there(client: "MlflowClient", run_id: str) -> bool:
    """Whether a run takes what is logged to it, after it was restored if somebody has deleted it or its experiment."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != GONE:
            raise
        return False
    if run.info.lifecycle_stage == DELETED:
        if client.get_experiment(run.info.experiment_id).lifecycle_stage == DELETED:
            _restore_experiment(client, run.info.experiment_id)  # with all its runs
        else:
            logger.warning("MLflow's run %s was deleted while it was worked with: it is restored", run_id)
            client.restore_run(run_id)
    return True


def _restore_experiment(client: "MlflowClient", experiment_id: str) -> None:
    logger.warning("MLflow's experiment %s was deleted: it is restored", experiment_id)
    client.restore_experiment(experiment_id)


def _client() -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings().mlflow_tracking_uri)
