"""What the pipeline adds to the trainer's MLflow run: the report, the golden scores, and links both ways."""

from pathlib import Path
from typing import TYPE_CHECKING

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
    client.set_tag(run_id, "mlflow.note.content", f"{evaluation.decision.reason}\n\n{see}")


def links(run_id: str) -> dict[str, str]:
    """Addresses in MLflow's UI: of the report and of the run."""
    experiment = _client().get_run(run_id).info.experiment_id
    base = (settings().mlflow_public_url or settings().mlflow_tracking_uri).rstrip("/")
    run = f"{base}/#/experiments/{experiment}/runs/{run_id}"
    return {"report": f"{run}/artifacts/{FOLDER}/report.html", "MLflow run": run}


def _client() -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings().mlflow_tracking_uri)
