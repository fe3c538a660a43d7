"""MLflow's model registry: versions whose files are all there, and the aliases that point at them.

A version is made in this order, so that nobody can come by one whose objects are missing:

1. the version, with ``ready=false`` and its source already ``models/<name>/<version>/``,
2. the files, copied there from the job's folder,
3. the tag ``ready=true``, and then the alias ``challenger``.

Look-ups by alias know ready versions only. Cut off anywhere, ``register`` finishes what it finds by the job's id.
"""

import hashlib
import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include import lake, objects
from include.registry import backups, mlmodel
from include.settings import settings

if TYPE_CHECKING:
    from mlflow.tracking._model_registry.client import ModelRegistryClient

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER, PREVIOUS, ANCHOR = "champion", "challenger", "previous", "anchor"
READY, JOB_ID, LABELS_HASH, DECISION = "ready", "job_id", "labels_hash", "decision"
NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
DESCRIPTION = (
    "Text classifier trained by bert_model_training_pipeline. The alias champion is in production, previous is what it "
    "replaced, challenger is the newest version that is not the champion, anchor is a former champion that challengers "
    "are compared with, too. Only versions tagged ready=true have all their files."
)
FILES = ("config.json", "model.safetensors")
"""What no version can be loaded without."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version; ``uri`` is the folder its files lie in, ``run_id`` the MLflow run that trained it."""

    name: str
    version: str
    uri: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def ready(self) -> bool:
        """Whether all its files are there."""
        return self.tags.get(READY) == "true"


def register(model_name: str, source_uri: str, mlflow_run_id: str, tags: Mapping[str, str]) -> str:
    """Registers a job's model and returns its version, a number as a string.

    ``source_uri`` is the job's model folder; its files are copied, so jobs may be cleaned up. ``tags`` must have the
    ``job_id``: a job is registered once, and called again this gives the same version and finishes what is missing.
    The version becomes the ``challenger`` unless it has been decided about. Raises ValueError without a job_id, and
    FileNotFoundError if no model lies at ``source_uri``.
    """
    if not tags.get(JOB_ID):
        raise ValueError(f"tags of a {model_name} version must name its job_id: it is what keeps a job registered once")
    tags = {**tags, LABELS_HASH: hash_labels(labels_of(source_uri))}
    _ensure_model(model_name)
    _remove_cut_off(model_name, tags[JOB_ID])
    version = of_job(model_name, tags[JOB_ID]) or _create(model_name, mlflow_run_id, tags)
    if not version.ready:
        objects.copy(source_uri, version.uri)
        mlmodel.describe(version.uri)
        tag(version, {READY: "true"})
    if DECISION not in version.tags:
        point(model_name, CHALLENGER, version.version)
    return version.version


def by_alias(model_name: str, alias: str) -> ModelVersion | None:
    """The ready version an alias points at; None if there is no such model, alias or the version is not ready."""
    version = pointed(model_name, alias)
    return version if version and version.ready else None


def pointed(model_name: str, alias: str) -> ModelVersion | None:
    """The version an alias points at, ready or not."""
    return _find(lambda client: client.get_model_version_by_alias(model_name, alias))


def by_version(model_name: str, version: str) -> ModelVersion | None:
    """A version, ready or not; None if there is none."""
    return _find(lambda client: client.get_model_version(model_name, version))


def of_job(model_name: str, job_id: str) -> ModelVersion | None:
    """The version that was made from a job, ready or not; None if the job is not registered."""
    return next((version for version in _all_of_job(model_name, job_id) if _is_at_home(version)), None)


def mend_files(version: ModelVersion) -> str:
    """Where a version's files are from, after those that were deleted were copied again; empty if they are gone."""
    job = lake.job(version.tags.get(JOB_ID, ""), "model")
    if is_complete(version.uri):
        return "where they belong"
    if version.tags.get(JOB_ID) and is_complete(job):
        objects.copy(job, version.uri)
        mlmodel.describe(version.uri)
        return "the job that made it"
    backup = backups.find(version.name, version.version)
    if backup is None:
        return ""
    try:
        backups.bring_back(backup, version.uri)
    except backups.BackupError as error:
        logger.warning("%s", error)
        return ""
    return "its backup"


def is_complete(uri: str) -> bool:
    """Whether a model's folder has what no model can be loaded without."""
    return all(objects.exists(f"{uri.rstrip('/')}/{name}") for name in FILES)


def all_versions() -> list[ModelVersion]:
    """Every version of every model."""
    client, found, token = _client(), [], None
    while True:
        page = client.search_model_versions(page_token=token)
        found += [_version(one) for one in page]
        token = page.token
        if not token:
            return found


def aliases(model_name: str) -> dict[str, str]:
    """The version that each alias of a model points at, ready or not."""
    found = _client().get_registered_model(model_name).aliases
    return {alias: str(version) for alias, version in found.items()}  # numbers where MLflow's store is asked itself


def point(model_name: str, alias: str, version: str) -> None:
    """Moves an alias, in one step, to a version."""
    _client().set_registered_model_alias(model_name, alias, version)


def unpoint(model_name: str, alias: str) -> None:
    """Takes an alias away; nothing happens if it is not there."""
    _client().delete_registered_model_alias(model_name, alias)


def tag(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Sets tags of a version, replacing those of the same names."""
    client = _client()
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def hash_labels(labels: list[str]) -> str:
    """16 hex digits for a model's labels in its own order."""
    return hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:16]


def _client() -> "ModelRegistryClient":
    """What MlflowClient has inside; that asks before each change, with a request, whether the model is a prompt."""
    from mlflow.tracking._model_registry.client import ModelRegistryClient

    uri = settings().mlflow_tracking_uri
    return ModelRegistryClient(uri, uri)


def _find(get: Any) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return _version(get(_client()))
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise


def _version(found: Any) -> ModelVersion:
    return ModelVersion(found.name, str(found.version), found.source, found.run_id or "", dict(found.tags))


def labels_of(source_uri: str) -> list[str]:
    """The labels of the model at a URI, in its own order. Raises ValueError if it is no trained classifier."""
    config = objects.read_json(f"{source_uri.rstrip('/')}/config.json")
    names: dict[str, str] = config.get("id2label") or {}
    if not names:
        raise ValueError(f"{source_uri}/config.json has no id2label: it is not a trained classifier")
    return [names[index] for index in sorted(names, key=int)]


def _ensure_model(model_name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _client().create_registered_model(model_name, description=DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _all_of_job(model_name: str, job_id: str) -> list[ModelVersion]:
    found = _client().search_model_versions(f"name='{model_name}' and tags.{JOB_ID}='{job_id}'")
    return sorted(map(_version, found), key=lambda version: int(version.version))


def _remove_cut_off(model_name: str, job_id: str) -> None:
    """Removes versions that were given another number than foretold, by a process that died before it removed them."""
    for version in _all_of_job(model_name, job_id):
        if not _is_at_home(version):
            _client().delete_model_version(model_name, version.version)


def _create(model_name: str, mlflow_run_id: str, tags: Mapping[str, str]) -> ModelVersion:
    """MLflow numbers a version while making it, and its source cannot change: the number is foretold, and checked."""
    client = _client()
    numbers = [int(found.version) for found in client.search_model_versions(f"name='{model_name}'")]
    expected = str(max(numbers, default=0) + 1)
    misses = 0
    while True:
        made = _version(
            client.create_model_version(
                model_name,
                source=_home(model_name, expected),
                run_id=mlflow_run_id,
                tags={**tags, READY: "false"},
                await_creation_for=0,  # only a server of Databricks takes time to create one
            )
        )
        if made.version == expected and not objects.find(made.uri):
            return made
        # Another one came between, or the newest was deleted: those numbers are not given again. They are where the
        # whole registered model was deleted; but the old files lie there, and the ledger knows another one by it.
        client.delete_model_version(model_name, made.version)
        expected = str(int(made.version) + 1)
        misses += 1
        if misses % 2 == 0:  # Or several that register at once take the numbers from each other, again and again.
            time.sleep(random.uniform(0, 0.1 * misses))


def _is_at_home(version: ModelVersion) -> bool:
    return version.uri == _home(version.name, version.version)


def _home(model_name: str, version: str) -> str:
    return lake.model(model_name, version).rstrip("/")
