"""What the pipeline adds to the trainer's MLflow run: the report, the golden scores, and links both ways."""

from pathlib import Path
from typing import TYPE_CHECKING

from include.lake import slug
from include.markdown import plain
from include.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from include.evaluation.evaluate import Evaluation

FOLDER = "report"


def log_report(run_id: str, folder: Path, airflow_url: str, evaluation: "Evaluation") -> None:
    """Adds a report's files and the golden scores to a run, and to its description where it came from."""
    client = _client()
    client.log_artifacts(run_id, str(folder), FOLDER)
    metrics = evaluation.challenger.metrics
    client.log_metric(run_id, "golden_accuracy", metrics.accuracy)
    client.log_metric(run_id, "golden_macro_f1", metrics.macro_f1)
    client.set_tag(run_id, "airflow_run", airflow_url)
    see = f"[Evaluation report]({links(run_id)['report']}) · [Airflow run]({airflow_url})"
    client.set_tag(run_id, "mlflow.note.content", f"{plain(evaluation.decision.reason)}\n\n{see}")


def log_page(model_name: str, dag_run_id: str, outcome: str, page: Path) -> str:
    """Keeps the report of a DAG run that trained nothing, in an experiment of its own; returns the page's address.

    A DAG run that is repeated gets the same MLflow run. Raises MlflowException if MLflow is not there, soon.
    """
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(2)  # by default it is minutes, and nobody waits for this one
    client, name, run = _client(), f"{model_name}-data", slug(dag_run_id)
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    found = client.search_runs([experiment_id], f"tags.dag_run = '{run}'", max_results=1)
    run_id = (found[0] if found else client.create_run(experiment_id, run_name=dag_run_id)).info.run_id
    client.set_tag(run_id, "dag_run", run)
    client.set_tag(run_id, "outcome", outcome)
    client.log_artifact(run_id, str(page), FOLDER)
    client.set_terminated(run_id)
    return links(run_id)["report"]


def links(run_id: str) -> dict[str, str]:
    """Addresses in MLflow's UI: of the report and of the run."""
    experiment = _client().get_run(run_id).info.experiment_id
    base = (settings().mlflow_public_url or settings().mlflow_tracking_uri).rstrip("/")
    run = f"{base}/#/experiments/{experiment}/runs/{run_id}"
    return {"report": f"{run}/artifacts/{FOLDER}/report.html", "MLflow run": run}


def _client() -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings().mlflow_tracking_uri)
