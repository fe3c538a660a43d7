"""Every setting of the project, typed, read from the environment once.

Names are the fields below in capitals behind ``BERT_``: ``BERT_BUCKET``, ``BERT_EPOCHS`` … AWS and MLflow keep their
own standard variables (``AWS_ENDPOINT_URL``, ``MLFLOW_TRACKING_URI``). Credentials are never settings: they are Airflow
connections or the AWS credential chain.
"""

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """All settings with their defaults; a wrong value stops the start with the variable's name and what is allowed."""

    model_config = SettingsConfigDict(env_prefix="BERT_", frozen=True, populate_by_name=True, env_ignore_empty=True)

    # Where things lie.
    bucket: str = Field("bert", description="S3 bucket name, or any fsspec URL (file:///… in unit tests)")
    mlflow_tracking_uri: str = Field("http://localhost:5000", validation_alias="MLFLOW_TRACKING_URI")
    mlflow_public_url: str = Field("", description="MLflow's address as a browser sees it, if it is another")

    # The model.
    model_name: str = Field("bert-classifier", pattern=r"^[A-Za-z0-9._-]+$")
    base_model: str = Field(
        "google-bert/bert-base-uncased",
        description="Hugging Face id, local path, s3:// URI or models:/name@alias",
    )

    # Uploads.
    upload_settle_seconds: float = Field(2.0, ge=0, description="an object younger than this may still be written")
    upload_unfinished_minutes: float = Field(
        60.0, ge=0, description="after this an object with an unfinished name (x.csv.part) is taken as it is"
    )
    upload_poll_seconds: float = Field(1.0, gt=0)
    claim_lease_seconds: float = Field(600.0, gt=0, description="after this an unfinished claim is taken over")
    data_timeout_minutes: float = Field(10.0, gt=0, description="how long wait_for_data waits for labelled data")

    # The data contract.
    text_column: str = Field("", description="name of the text column; empty: found by name")
    label_column: str = Field("", description="name of the label column; empty: found by name")
    labels: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="allowed labels, comma-separated; empty: those of the first accepted data"
    )
    max_text_characters: int = Field(20_000, ge=1)
    min_rows_per_label: int = Field(5, ge=3, description="a new label with fewer rows cannot be split and is rejected")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    golden_fraction: float = Field(0.15, gt=0, lt=0.5)
    golden_max_rows: int = Field(2_000, ge=10)
    golden_min_rows: int = Field(30, ge=1, description="fewer labelled rows than give this: no golden set, no training")

    # Training defaults; every one is also a Param of the DAG.
    training_backend: Literal["local", "kubernetes"] = "local"
    epochs: int = Field(4, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    batch_size: int = Field(32, ge=1)
    max_length: int = Field(128, ge=8, le=8192)
    seed: int = Field(42, ge=0)
    early_stopping_patience: int = Field(2, ge=0, description="epochs without a better macro-F1; 0: never stop early")

    # Promotion gates.
    min_accuracy: float = Field(0.7, ge=0, le=1, description="absolute floor on the golden set")
    max_accuracy_drop: float = Field(
        0.02, ge=0, le=1, description="non-inferiority margin against the champion, on the golden set"
    )
    gate_confidence: float = Field(0.95, gt=0.5, lt=1)
    min_class_recall: float = Field(0.5, ge=0, le=1)
    min_class_rows: int = Field(10, ge=1, description="classes with fewer golden rows are not gated")

    @field_validator("labels", mode="before")
    @classmethod
    def _split_labels(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
