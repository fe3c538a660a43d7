"""The trainer's contract: a job comes in, a result goes out, both as JSON in the job's folder."""

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from include import lake, objects


class Hyperparameters(BaseModel):
    """What a training run can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    max_length: int = Field(ge=8, le=8192)
    seed: int = Field(ge=0)
    early_stopping_patience: int = Field(2, ge=0)


DECISIVE = ("dataset_uri", "model_name", "base_model", "hyperparameters")
RESOLVED = ("dataset_hash", "base_model_revision", "trainer_hash", "repeats")
"""What decides an outcome and what is asked for does not say. Jobs from before they were named have none of them."""


class Job(BaseModel):
    """One training job. Its id is a hash of all that decides its outcome, so the same job is never trained twice.

    What only may decide it (``image``, ``versions``) is named, so that two outcomes can be told apart, and is not part
    of the id: a new version of a library is no reason to train again what was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_uri: str  # folder with train.parquet and validation.parquet: columns text, label
    model_name: str
    base_model: str
    hyperparameters: Hyperparameters
    mlflow_tracking_uri: str
    mlflow_experiment: str
    mlflow_run_name: str = ""
    dataset_hash: str = ""  # of the rows, where the folder has a manifest that says it
    base_model_revision: str = ""  # empty: the trainer looks, where whoever submits cannot
    trainer_hash: str = ""  # of include/training, where it was submitted
    image: str = ""  # that it is submitted for
    versions: dict[str, str] = {}  # of the libraries, where it trains in the environment that submits it
    repeats: str = ""  # the job that it trains again, and what for: another job, though all else is the same

    @property
    def job_id(self) -> str:
        """The job's name, 16 hex digits: a hash of all that decides what is trained."""
        return self._hash({*DECISIVE, *(name for name in RESOLVED if getattr(self, name))})

    @property
    def request_id(self) -> str:
        """16 hex digits of what is asked for; the id of jobs from before the rest was named."""
        return self._hash(set(DECISIVE))

    def _hash(self, names: set[str]) -> str:
        return hashlib.sha256(self.model_dump_json(include=names).encode()).hexdigest()[:16]

    def submit(self) -> str:
        """Writes job.json, with the addresses of now if an earlier attempt left one; returns its URI."""
        return objects.write_bytes(lake.job(self.job_id, "job.json"), self.model_dump_json(indent=2).encode())


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
    base_model_revision: str = ""
    trainer_hash: str = ""
    image: str = ""
    dataset_files: dict[str, str] = {}  # SHA-256 of each split's file
    machine: dict[str, str] = {}  # what of it may change the last digits of a sum
    resumed_from_step: int = 0
    extra: dict[str, Any] = {}
