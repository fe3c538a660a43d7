"""The trainer's contract: a job comes in, a result goes out, both as JSON in the job's folder."""

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from include import lake


class Hyperparameters(BaseModel):
    """What a training run can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    max_length: int = Field(ge=8, le=8192)
    seed: int = Field(ge=0)
    early_stopping_patience: int = Field(2, ge=0)


class Job(BaseModel):
    """One training job. Its id is a hash of all that decides its outcome, so the same job is never trained twice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_uri: str  # folder with train.parquet and validation.parquet: columns text, label
    model_name: str
    base_model: str
    hyperparameters: Hyperparameters
    mlflow_tracking_uri: str
    mlflow_experiment: str
    mlflow_run_name: str = ""

    @property
    def job_id(self) -> str:
        """16 hex digits."""
        decisive = self.model_dump_json(include={"dataset_uri", "model_name", "base_model", "hyperparameters"})
        return hashlib.sha256(decisive.encode()).hexdigest()[:16]

    def submit(self) -> str:
        """Writes job.json, with the addresses of now if an earlier attempt left one; returns its URI."""
        return lake.write_bytes(lake.job(self.job_id, "job.json"), self.model_dump_json(indent=2).encode())


class Result(BaseModel):
    """What a finished job leaves behind; written last, so whoever finds it finds everything it names."""

    model_config = ConfigDict(extra="forbid")

    job_id: str
    status: Literal["succeeded"] = "succeeded"
    model_uri: str  # folder with safetensors, tokenizer and config
    mlflow_run_id: str
    best_epoch: int
    metrics: dict[str, float]  # validation_loss, validation_accuracy, validation_macro_f1 of the best epoch
    history: list[dict[str, float]]  # per epoch: epoch, train_loss, validation_loss, validation_accuracy, …
    labels: list[str]
    rows: dict[str, int]  # train, validation
    seconds: dict[str, float]  # total, to_first_step, training
    throughput: dict[str, float] = {}  # texts_per_second, tokens_per_second, over how many steps
    versions: dict[str, str]
    resumed_from_step: int = 0
    extra: dict[str, Any] = {}
