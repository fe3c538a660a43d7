"""A stack seen from outside: Airflow over REST, objects in S3, models in MLflow, rows in the warehouse."""

import io
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dev.docker import DockerStack
from dev.sample_data import Upload
from dev.stack import Stack
from include.lake import slug

PIPELINE = "bert_model_training_pipeline"
RUN_STARTS_WITHIN_SECONDS = 180.0
OVER = ("success", "failed")


@dataclass(frozen=True)
class Event:
    """Something to show; ``passing`` is replaced by what comes next."""

    text: str
    passing: bool = False


class Observer:
    """Looks at a stack; changes nothing."""

    def __init__(self, stack: Stack | DockerStack) -> None:
        self.airflow, self.s3, self.bucket = stack.airflow, stack.s3, stack.env["BERT_BUCKET"]
        self.model = stack.env.get("BERT_MODEL_NAME", "bert-classifier")
        self.mlflow = MlflowClient(stack.mlflow_uri, stack.mlflow_uri)
        self.warehouse = sa.create_engine(stack.warehouse_url)

    def runs(self) -> dict[str, str]:
        """The states of the pipeline's runs."""
        answer = self.airflow.get(f"dags/{PIPELINE}/dagRuns", params={"limit": 100, "order_by": "-start_date"})
        return {run["dag_run_id"]: run["state"] for run in answer.raise_for_status().json()["dag_runs"]}

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the REST API shows it."""
        answer = self.airflow.get(f"dags/{PIPELINE}/dagRuns/{quote(run_id)}")
        return dict(answer.raise_for_status().json())

    def new_run(self, known: set[str]) -> str:
        """Waits until a run has begun that is not among the known ones. Raises TimeoutError."""
        deadline = time.monotonic() + RUN_STARTS_WITHIN_SECONDS
        while time.monotonic() < deadline:
            for run_id in sorted(set(self.runs()) - known):
                if self.run(run_id)["start_date"]:
                    return run_id
            time.sleep(0.5)
        raise TimeoutError(f"no run began within {RUN_STARTS_WITHIN_SECONDS:.0f} s of the upload; see `make logs`")

    def follow(self, run_id: str) -> Iterator[Event]:
        """What happens in a run, as it happens, until it is over."""
        shown: set[tuple[str, str, int]] = set()
        epochs = 0
        while True:
            over = self.run(run_id)["state"] in OVER
            for task in self.task_instances(run_id):
                name, state, attempt = task["task_id"], task["state"], task["try_number"]
                if state in ("success", "failed", "up_for_retry", "skipped") and (name, state, attempt) not in shown:
                    shown.add((name, state, attempt))
                    took = f"{task['duration']:.0f} s" if task["duration"] else ""
                    yield Event(f"{name} {state.replace('_', ' ')} {took}".rstrip())
                if state in ("running", "deferred"):
                    yield Event(name, passing=True)
                    if name == "train_model":
                        for event in self._training(run_id, epochs):
                            epochs += not event.passing
                            yield event
            if over:
                return
            time.sleep(1)

    def report(self, run_id: str) -> dict[str, Any]:
        """A finished run's run.json with its state; of a run that failed before, only the note."""
        run = self.run(run_id)
        rows = {"in": 0, "used": 0, "rejected": 0, "waiting": 0}
        report: dict[str, Any] = {"outcome": "failed", "reason": run["note"] or "", "rows": rows, "files": []}
        with suppress(self.s3.exceptions.NoSuchKey):
            report = json.loads(self.read(f"reports/{PIPELINE}/{slug(run_id)}/run.json"))
        return report | {"state": run["state"]}

    def judged_labels(self, run_id: str) -> set[str]:
        """The labels of the golden rows that a run's challenger has answered."""
        evaluation = json.loads(self.read(f"reports/{PIPELINE}/{slug(run_id)}/evaluation.json"))
        return {one["label"] for one in evaluation["challenger"]["metrics"]["classes"] if one["support"]}

    def champion(self) -> str | None:
        """The champion's version; None if there is none."""
        return self.alias("champion")

    def alias(self, name: str) -> str | None:
        """The version an alias points at; None if there is no such alias."""
        try:
            return str(self.mlflow.get_model_version_by_alias(self.model, name).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model, no alias
                return None
            raise

    def champion_facts(self) -> dict[str, Any]:
        """The champion's version, golden scores and dataset; empty if there is none."""
        version = self.champion()
        if version is None:
            return {}
        found = self.mlflow.get_model_version(self.model, version)
        metrics = self.mlflow.get_run(found.run_id).data.metrics
        return {
            "version": int(version),
            "accuracy": metrics["golden_accuracy"],
            "macro_f1": metrics["golden_macro_f1"],
            "dataset_id": found.tags["dataset_id"],
        }

    def last_decision(self) -> tuple[str, str] | None:
        """Verb and version of the ledger's newest entry, but for what the daily validation decides at night."""
        with self.warehouse.connect() as connection, suppress(sa.exc.ProgrammingError):
            newest = "WHERE verb <> 'drift_decision' ORDER BY seq DESC"
            row = connection.execute(sa.text(f"SELECT verb, version FROM promotion_ledger {newest}")).first()
            return (row[0], row[1]) if row else None
        return None

    def quarantined_file(self, upload: Upload) -> bytes:
        """What lies in quarantine under a file's name; empty if nothing does."""
        keys = [key for key in self.keys("quarantine/") if key.endswith(f"/files/{upload.name}")]
        return self.read(keys[-1]) if keys else b""

    def rejected_rows(self, report: dict[str, Any]) -> pd.DataFrame:
        """All rows that a run put into quarantine."""
        uris = [file["quarantine"] for file in report.get("files", []) if file["quarantine"] and not file["reason"]]
        keys = [uri.removeprefix(f"s3://{self.bucket}/") for uri in dict.fromkeys(uris)]
        there = set(self.keys("quarantine/"))
        frames = [pd.read_parquet(io.BytesIO(self.read(key))) for key in keys if key in there]
        return pd.concat(frames) if frames else pd.DataFrame({"reason": []})

    def score_champion(self, rows: pd.DataFrame) -> dict[str, Any]:
        """The champion's accuracy and macro-F1 on rows (text, label) that it was not trained on."""
        from sklearn.metrics import accuracy_score, f1_score

        from include.training.scoring import score

        source = str(self.mlflow.get_model_version(self.model, str(self.champion())).source)
        prefix = source.removeprefix(f"s3://{self.bucket}/").rstrip("/") + "/"
        with tempfile.TemporaryDirectory() as folder:
            for key in self.keys(prefix):
                target = Path(folder) / key.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.s3.download_file(self.bucket, key, str(target))
            predicted = score(folder, list(rows["text"])).predicted
        macro = f1_score(rows["label"], predicted, average="macro", zero_division=0)
        return {
            "rows": len(rows),
            "accuracy": float(accuracy_score(rows["label"], predicted)),
            "macro_f1": float(macro),
        }

    def task_instances(self, run_id: str) -> list[dict[str, Any]]:
        """A run's tasks as the REST API shows them, in the order in which they ended."""
        answer = self.airflow.get(f"dags/{PIPELINE}/dagRuns/{quote(run_id)}/taskInstances").raise_for_status()
        tasks: list[dict[str, Any]] = answer.json()["task_instances"]
        return sorted(tasks, key=lambda task: task["end_date"] or "9")

    def keys(self, prefix: str) -> list[str]:
        """All keys below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """An object's content."""
        content: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def _training(self, run_id: str, epochs_shown: int) -> Iterator[Event]:
        """Each new epoch's scores, and how far training is; nothing while MLflow has no run yet."""
        runs = [
            run
            for experiment in self.mlflow.search_experiments(filter_string=f"name = '{self.model}'")
            for run in self.mlflow.search_runs([experiment.experiment_id], max_results=5)
            if run.info.run_name == run_id
        ]
        for run in runs[:1]:
            scores = self.mlflow.get_metric_history(run.info.run_id, "validation_macro_f1")
            losses = self.mlflow.get_metric_history(run.info.run_id, "validation_loss")
            for at, (f1, loss) in enumerate(zip(scores, losses, strict=False)):
                if at >= epochs_shown:
                    yield Event(
                        f"train_model epoch {at + 1}: validation loss {loss.value:.3f}, macro-F1 {f1.value:.3f}"
                    )
            now = run.data.metrics
            if "progress" in now:
                pace = f"loss {now.get('train_loss', 0):.3f}, {now.get('texts_per_second', 0):.0f} texts/s"
                yield Event(f"train_model {now['progress']:.0%}, {pace}", passing=True)
