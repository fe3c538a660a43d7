"""Every setting of the project, typed, read from the environment once.

Names are the fields below in capitals behind ``BERT_``: ``BERT_BUCKET``, ``BERT_EPOCHS`` … AWS and MLflow keep their
own standard variables (``AWS_ENDPOINT_URL``, ``MLFLOW_TRACKING_URI``). Credentials are never settings: they are Airflow
connections or the AWS credential chain.

``python -m include.settings`` says which variables of the environment are no settings or have values that are not
allowed, and ends with 1 if there are any.
"""

import difflib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from include import renaming
from include.settings import quiet
from include.settings.console import ConsoleSettings
from include.settings.monitoring import MonitoringSettings
from include.settings.pod import PodSettings
from include.settings.serving import ServingSettings
from include.settings.types import Names, TrackingUri, cron, parse_object, split


class Deployment(BaseSettings):
    """What Airflow asks before it starts; apart from the rest, which may be wrong without stopping it."""

    model_config = SettingsConfigDict(
        env_prefix="BERT_", frozen=True, populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    environment: Literal["local", "preview", "staging", "production"] = Field(
        "production",
        description="local on a developer's machine only: elsewhere Airflow refuses to start with missing or "
        "well-known secrets",
    )


class Settings(Deployment):
    """All settings with their defaults; a wrong value stops the start with the variable's name and what is allowed."""

    # Where things lie.
    bucket: str = Field("bert", description="S3 bucket name, or any fsspec URL (file:///… in unit tests)")
    mlflow_tracking_uri: TrackingUri = Field("http://localhost:5000", validation_alias="MLFLOW_TRACKING_URI")
    mlflow_public_url: str = Field("", description="MLflow's address as a browser sees it, if it is another")

    # The model.
    model_name: str = Field("bert-classifier", pattern=r"^[A-Za-z0-9._-]+$")
    base_model: str = Field(
        "google-bert/bert-base-uncased",
        description="Hugging Face id, s3:// URI, models:/name@alias, packaged:name or a local path",
    )
    base_model_buckets: Names = Field(
        (), description="S3 buckets that a run may take base models from, beside BERT_BUCKET, comma-separated"
    )
    local_base_models: bool = Field(
        False, description="whether a run may name a folder of the machine that trains as its base model"
    )
    fast: bool = Field(
        True, description="false: transformers' plain Trainer, to see whether a doubt is about speed code"
    )
    image: str = Field("", description="the image that this runs in, by digest; each training job names it")

    # Uploads.
    upload_settle_seconds: float = Field(2.0, ge=0, description="an object younger than this may still be written")
    upload_unfinished_minutes: float = Field(
        60.0, ge=0, description="after this an object with an unfinished name (x.csv.part) is taken as it is"
    )
    upload_poll_seconds: float = Field(1.0, gt=0, description="pause between two requests of the waiting listener")
    uploads_queue_url: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="SQS queue that hears of uploads; empty: incoming/ is listed"
    )
    uploads_look_seconds: float = Field(
        300.0, gt=0, le=86_400, description="with a queue: after this without a message incoming/ is looked at anyway"
    )
    batches_look_seconds: float = Field(
        60.0, gt=0, le=3600, description="pause between two looks at batches whose run has not ended yet"
    )
    upload_retry_minutes: float = Field(
        5.0, gt=0, le=1440, description="after a run that failed its uploads are tried again, then after twice as long"
    )
    claim_lease_seconds: float = Field(600.0, gt=0, description="after this an unfinished claim is taken over")
    data_timeout_minutes: float = Field(10.0, gt=0, description="how long wait_for_data waits for labelled data")

    claims_days: float = Field(365.0, ge=0, description="claims that ended this long ago are deleted")
    staging_days: float = Field(14.0, ge=0, description="so are what ended runs handed from task to task,")
    jobs_days: float = Field(30.0, ge=0, description="training jobs that no model version comes from,")
    datasets_days: float = Field(90.0, ge=0, description="and datasets that no model version was trained on")
    drafts_days: float = Field(30.0, ge=0, description="so are files that were looked at in the console")

    # The weekly ETL.
    sources: str = Field("include/ingestion/sources.yaml", description="the YAML file that lists its sources")
    etl_engine: Literal["warehouse", "spark"] = Field(
        "warehouse", description="what transforms and merges its rows: SQL in the warehouse, or Spark (docs/etl.md)"
    )
    spark_conf: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="Spark's own settings for these jobs, a JSON object of names and values"
    )

    # Alerts: sent by mail if there is the connection smtp_default, and to Slack if there is slack_default.
    alert_emails: Names = Field((), description="who gets alerts by mail, comma-separated")
    quiet_hours: Annotated[str, AfterValidator(quiet.checked)] = Field(
        "",
        description="when alerts wait that are not urgent: 22:00-07:00, or 22:00-07:00 Europe/Berlin for a zone other "
        "than UTC; empty: never",
    )
    late_minutes: float = Field(
        360.0, gt=0, description="a DAG run that takes longer than this, its watch not counted, is told of as late"
    )
    stuck_hours: float = Field(24.0, gt=0, description="so is an upload that has waited this long for a run to use it")

    # The data contract.
    text_column: str = Field("", description="name of the text column; empty: found by name")
    label_column: str = Field("", description="name of the label column; empty: found by name")
    labels: Names = Field(
        (), description="allowed labels, comma-separated or a JSON list; empty: those of the first accepted data"
    )
    new_labels: Literal["wait", "reject", "admit"] = Field(
        "wait",
        description="what becomes of a label that the model does not know: its rows wait until there are "
        "new_label_rows, are rejected, or are trained on as soon as there are min_rows_per_label",
    )
    new_label_rows: int = Field(20, ge=3, description="good rows with which a new label joins")
    admitted_labels: Names = Field((), description="new labels that need no more than min_rows_per_label, likewise")
    label_mapping: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description='labels that were renamed or merged, a JSON object of old and new names: {"billing": "invoices"}',
    )
    max_text_characters: int = Field(20_000, ge=1)
    max_unpacked_gib: float = Field(4.0, gt=0, description="a compressed file that unpacks to more is not read")
    min_rows_per_label: int = Field(5, ge=3, description="a new label with fewer rows cannot be split and is rejected")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    golden_fraction: float = Field(0.15, gt=0, lt=0.5)
    golden_max_rows: int = Field(2_000, ge=10)
    golden_min_rows: int = Field(30, ge=1, description="fewer labelled rows than give this: no golden set, no training")

    # Training defaults; every one is also a Param of the DAG.
    training_backend: Literal["local", "kubernetes"] = "local"
    training_notebook: str = Field(
        "",
        validation_alias=AliasChoices("BERT_TRAINING_NOTEBOOK", "TRAINING_NOTEBOOK"),
        description="a notebook that trains in place of the script, as include/notebooks/train.ipynb does; "
        "TRAINING_NOTEBOOK will do, too",
    )
    pod: PodSettings = Field(default_factory=PodSettings, description="see BERT_POD_*")
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
    gate_confidence: float = Field(
        0.99, gt=0.5, lt=1, description="how sure it must be that a challenger is worse than the champion to refuse it"
    )
    anchor_confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="the same beside the anchor, a former champion that a slow decline is seen beside",
    )
    when_unsure: Literal["promote", "keep"] = Field(
        "promote", description="keep: a lower score that the golden rows are too few to judge keeps the champion"
    )
    promotion: Literal["automatic", "manual"] = Field(
        "automatic",
        description="manual: a challenger that passes the gates, or that they cannot judge, waits for a person "
        "(decide_challenger, make approve)",
    )
    canary: float = Field(
        0.0, ge=0, le=50, description="percent of the requests that a new champion gets at first; 0: all at once"
    )
    canary_minutes: float = Field(10.0, gt=0, le=1440, description="after which it gets all of them")
    watch_minutes: float = Field(60.0, gt=0, le=1440, description="how long a new champion is watched")
    retrain_schedule: str = Field(
        "", description="when model_retraining_dag starts by itself: a preset as @monthly, or a cron expression"
    )
    backups_kept: int = Field(5, ge=1, description="backups of champions, of which the oldest go first")
    min_class_recall: float = Field(
        0.5, ge=0, le=1, description="a class fails if it is below this and shown to be recalled worse than before"
    )
    min_class_rows: int = Field(10, ge=1, description="classes with fewer golden rows are not gated")

    _split_names = field_validator("labels", "admitted_labels", "base_model_buckets", "alert_emails", mode="before")(
        split
    )

    _parse_conf = field_validator("spark_conf", mode="before")(parse_object)
    _check_schedule = field_validator("retrain_schedule")(cron)

    _parse_mapping = field_validator("label_mapping", mode="before")(renaming.parse)
    _check_mapping = field_validator("label_mapping")(renaming.check)

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            renaming.check_allowed(self.label_mapping, self.labels)
        except ValueError as error:
            raise ValueError(f"BERT_LABEL_MAPPING: {error}") from error
        if self.training_backend == "kubernetes" and not self.pod.image:
            raise ValueError("BERT_TRAINING_BACKEND=kubernetes needs the trainer's image: set BERT_POD_IMAGE")
        if self.training_backend == "kubernetes" and self.training_notebook:
            raise ValueError("BERT_TRAINING_NOTEBOOK runs on Airflow's workers: it needs BERT_TRAINING_BACKEND=local")
        return self


def is_set_for_airflow(section: str, option: str) -> bool:
    """Whether someone has set an option of Airflow's: as a variable, by a command or in a secrets backend."""
    name = f"AIRFLOW__{section}__{option}".upper()
    return any(os.environ.get(name + source) for source in ("", "_CMD", "_SECRET"))


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process."""
    return Settings()


NOT_SETTINGS = ("BERT_AUDIT",)
"""Variables of this project that are none of its settings: its tools read them."""


def faults() -> list[str]:
    """What is wrong with this process's ``BERT_*`` variables, a sentence each: the variable, and what is allowed."""
    wrong_pod = list(_wrong_values(PodSettings))
    # With a pod that is wrong, the rest can still be looked at beside one that is right.
    stand_in = {"pod": PodSettings.model_construct(image="any")} if wrong_pod else {}
    models = (ServingSettings, MonitoringSettings, ConsoleSettings)
    others = [fault for model in models for fault in _wrong_values(model)]
    return [*_unknown_names(), *wrong_pod, *others, *_wrong_values(Settings, **stand_in)]


def variables() -> dict[str, str]:
    """Every setting's variable, with what it is about."""
    found = {}
    for model in (PodSettings, ServingSettings, MonitoringSettings, ConsoleSettings, Settings):
        for name, field in model.model_fields.items():
            default = None if field.default_factory else f"the default is {field.default!r}"
            found[_variable(model, name)] = "; ".join(part for part in (field.description, default) if part)
    return found


def _unknown_names() -> Iterator[str]:
    known = [name.removeprefix("BERT_") for name in variables()]
    for name, value in sorted(os.environ.items()):
        upper = name.upper()
        short = upper.removeprefix("BERT_")
        if value and short != upper and short not in known and upper not in NOT_SETTINGS:
            near = difflib.get_close_matches(short, known, n=1)
            hint = f"did you mean BERT_{near[0]}?" if near else "include/settings has them all"
            yield f"{name} is no setting; {hint}"


def _wrong_values(model: type[BaseSettings], **values: Any) -> Iterator[str]:
    try:
        model(**values)
    except ValidationError as error:
        for one in error.errors():
            said = one["msg"].removeprefix("Value error, ")
            said = said.replace("Input should be", "it should be")
            if not one["loc"]:
                yield said
                continue
            name = _variable(model, str(one["loc"][0]).removeprefix("BERT_").lower())
            yield f"{name}: {said} ({variables().get(name, '')})"
    except SettingsError as error:  # pydantic-settings says the field, and nothing of what was wrong
        field = re.search(r'field "(\w+)"', str(error))
        name = _variable(model, field[1]) if field else str(error)
        yield f"{name}: it should be JSON ({variables().get(name, '')})"


def _variable(model: type[BaseSettings], field: str) -> str:
    alias = model.model_fields[field].validation_alias if field in model.model_fields else None
    if isinstance(alias, str):
        return alias
    return f"{model.model_config['env_prefix']}{field}".upper()
