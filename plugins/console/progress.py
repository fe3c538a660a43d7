"""How a run's training goes, from the job's folder and MLflow's REST API: mlflow itself takes seconds to import."""

import logging
from typing import Any

import requests

from include import lake, objects
from include.settings import settings
from include.settings.console import MlflowLogin
from include.training.job import Job

logger = logging.getLogger(__name__)

SECONDS = 3.0  # that MLflow may take; the page asks again
SHOWN = ("validation_loss", "validation_macro_f1", "validation_accuracy", "epoch_train_loss", "epoch")
TRAIN_TASK = "train_model"


def of_run(run_id: str) -> dict[str, Any]:
    """The epochs of a run's training so far, and how much of it is done; empty if nothing is known.

    Returns ``epochs``, a list of epoch, loss and scores, and ``done``, a share of one.
    """
    tracked = _mlflow_run(run_id)
    if tracked is None:
        return {}
    histories = {name: _history(tracked, name) for name in SHOWN}
    by_step: dict[int, dict[str, float]] = {}
    for name, points in histories.items():
        for point in points:
            by_step.setdefault(int(point["step"]), {})[name] = float(point["value"])
    epochs = [by_step[step] for step in sorted(by_step) if "validation_loss" in by_step[step]]
    done = _history(tracked, "progress")
    return {
        "epochs": [{"epoch": at, **epoch} for at, epoch in enumerate(epochs, 1)],
        "done": float(done[-1]["value"]) if done else None,
    }


def _mlflow_run(run_id: str) -> str | None:
    """The MLflow run that a run's training writes to; None as long as there is none."""
    pinned = lake.staging(run_id, f"{TRAIN_TASK}.job.json")
    if not objects.exists(pinned):
        return None
    tracked = lake.job(Job.model_validate(objects.read_json(pinned)).job_id, "mlflow_run.json")
    return str(objects.read_json(tracked)["run_id"]) if objects.exists(tracked) else None


def _history(mlflow_run: str, metric: str) -> list[dict[str, Any]]:
    """A metric's values in their order; none if MLflow does not answer."""
    login, base = MlflowLogin(), settings().mlflow_tracking_uri.rstrip("/")
    if not base.startswith("http"):
        return []
    token = login.token.get_secret_value()
    try:
        answer = requests.get(
            f"{base}/api/2.0/mlflow/metrics/get-history",
            params={"run_id": mlflow_run, "metric_key": metric},
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(login.username, login.password.get_secret_value()) if login.username else None,
            timeout=SECONDS,
        )
        answer.raise_for_status()
    except requests.RequestException as error:
        logger.warning("MLflow does not say how the training goes: %s", error)
        return []
    found: list[dict[str, Any]] = answer.json().get("metrics", [])
    return found
