"""The typed form of a training run: what the UI's form shows and what ``conf`` of the REST API is checked against."""

from airflow.models.param import Param

from include import lake
from include.settings import settings


def training_params() -> dict[str, Param]:
    """Params of every DAG that trains; their defaults are the settings."""
    config = settings()
    return {
        "dataset_uri": Param(
            None,
            type=["null", "string"],
            pattern=r"^s3://[^/]+/.+",
            title="Dataset URI",
            description="A labelled file, a folder ending in / or a pattern with *. Empty: what was uploaded and not "
            "used yet; if there is nothing, the champion's own dataset is trained on again.",
        ),
        "base_model": Param(
            config.base_model,
            type="string",
            minLength=1,
            title="Base model",
            description="Hugging Face id, local path, s3:// URI or models:/name@alias",
        ),
        "epochs": Param(config.epochs, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "learning_rate": Param(
            config.learning_rate, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate"
        ),
        "batch_size": Param(config.batch_size, type="integer", minimum=1, maximum=4096, title="Texts per batch"),
        "max_length": Param(
            config.max_length, type="integer", minimum=8, maximum=8192, title="Tokens per text, at most"
        ),
        "seed": Param(config.seed, type="integer", minimum=0, maximum=2**32 - 1, title="Seed"),
    }


def data_bucket(dataset_uri: str | None) -> str:
    """The bucket in which a run waits for its data."""
    return _awaited(dataset_uri).split("/", 3)[2]


def data_pattern(dataset_uri: str | None) -> str:
    """The wildcard for which a run waits there: its data, or without a URI any claimed batch."""
    key = _awaited(dataset_uri).split("/", 3)[3]
    return f"{key}*" if key.endswith("/") or not key else key


def _awaited(dataset_uri: str | None) -> str:
    return dataset_uri or lake.claims("*", "manifest.json")
