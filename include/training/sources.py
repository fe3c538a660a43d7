"""Base models: a Hugging Face id, a local path, an s3:// URI or models:/name@alias becomes something loadable."""

import json
import logging
from pathlib import Path

from include import lake
from include.training.errors import TrainingError

logger = logging.getLogger(__name__)


def fetch_base_model(base_model: str, tracking_uri: str, folder: Path) -> str:
    """Makes a base model loadable by transformers.

    Args:
        base_model: Hugging Face id, local path, URI that fsspec knows, or ``models:/name@alias`` (``models:/name/3``).
        tracking_uri: The MLflow server that resolves ``models:/``.
        folder: To download to; if it is there already, it is taken as it is.

    Returns:
        A local path, or the Hugging Face id unchanged.

    Raises:
        TrainingError: the model is not where `base_model` says.
    """
    source = _registered_source(base_model, tracking_uri) if base_model.startswith("models:/") else base_model
    if "://" in source:
        return str(_download(source, folder))
    if Path(source).is_dir():
        return source
    if source.startswith((".", "/", "~")):
        raise TrainingError(f"base model folder {source} does not exist: correct BERT_BASE_MODEL")
    return source


def _download(uri: str, folder: Path) -> Path:
    if folder.is_dir():  # the first of several processes has downloaded it for all
        return folder
    logger.info("downloading base model %s", uri)
    try:
        return lake.download(uri, folder)
    except FileNotFoundError:
        raise TrainingError(f"no base model at {uri}: correct BERT_BASE_MODEL") from None


def _registered_source(uri: str, tracking_uri: str) -> str:
    """The source URI of a registered version."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri)
    name, at, alias = uri.removeprefix("models:/").partition("@")
    try:
        if at:
            version = client.get_model_version_by_alias(name, alias)
        else:
            version = client.get_model_version(*name.rsplit("/", 1))
    except (MlflowException, TypeError) as error:
        raise TrainingError(
            f"base model {uri} is not in the registry at {tracking_uri} ({error}): "
            "register it, or name another in BERT_BASE_MODEL"
        ) from error
    logger.info("base model %s is version %s at %s", uri, version.version, version.source)
    return str(version.source)


def pools_by_mean(model: str) -> bool:
    """Whether a base model was trained for mean pooling, as its sentence-transformers files say.

    Args:
        model: Local folder or Hugging Face id, as `fetch_base_model` returns it.
    """
    path = Path(model) / "1_Pooling" / "config.json" if Path(model).is_dir() else _from_hub(model)
    if path is None or not path.is_file():
        return False
    pooling = json.loads(path.read_text())
    return bool(pooling.get("pooling_mode_mean_tokens")) or pooling.get("pooling_mode") == "mean"


def _from_hub(model: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(model, "1_Pooling/config.json"))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None  # no such file; a hub out of reach is reported when the weights are loaded
