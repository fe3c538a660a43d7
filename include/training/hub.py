"""Base models of the Hugging Face hub: one commit of a model, and all of it that training needs.

transformers asks for a model's files one by one, and takes most answers that are no file for "there is none": a hub
that is busy would so leave out what says how a model pools, and another head would be trained. Here only 404 says that.
"""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from include.training.errors import TrainingError

logger = logging.getLogger(__name__)

ATTEMPTS = 5
WAIT_SECONDS = 2.0  # before the second; then twice as long each time
LONGEST_WAIT = 60.0  # that a hub may ask for
TIMEOUT = 20.0
POOLING = "1_Pooling/config.json"
SETTINGS = re.compile(r"[^/]+\.(json|txt|model)")
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")

Answer = TypeVar("Answer")


def newest_commit(name: str) -> str:
    """The commit of a model that is the newest now; with ``HF_HUB_OFFLINE`` that of the cache.

    Raises:
        TrainingError: the hub does not know the model, does not show it, or does not answer.
    """
    from huggingface_hub import is_offline_mode, model_info

    if not is_offline_mode():
        return str(_patiently(name, lambda: model_info(name, timeout=TIMEOUT)).sha)
    cached = _newest_in_cache(name)
    if not cached:
        raise TrainingError(
            f"base model {name} is not in the cache, and HF_HUB_OFFLINE is set: fetch it once with the hub in reach, "
            "or name another in BERT_BASE_MODEL"
        )
    return cached


def _newest_in_cache(name: str) -> str:
    """The commit that others' downloads have left as the main branch's, or the last one fetched here; empty if none."""
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache
    from huggingface_hub.errors import CacheNotFound

    of_branch = try_to_load_from_cache(name, "config.json")
    if isinstance(of_branch, str):
        return Path(of_branch).parent.name
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return ""
    found = [revision for repo in repos if repo.repo_id == name for revision in repo.revisions]
    return max(found, key=lambda revision: revision.last_modified).commit_hash if found else ""


def fetch(name: str, commit: str) -> Path:
    """The folder of a model's files at a commit, downloaded unless the cache has them.

    Raises:
        TrainingError: the hub does not give one of them, or the cache cannot tell how the model pools.
    """
    from huggingface_hub import hf_hub_download, is_offline_mode, model_info
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if is_offline_mode():
        return _cached(name, commit)
    info = _patiently(name, lambda: model_info(name, revision=commit, timeout=TIMEOUT))
    logger.info("base model %s is commit %s of the hub", name, commit)
    for file in _needed([sibling.rfilename for sibling in info.siblings or []]):
        _patiently(name, lambda file=file: hf_hub_download(name, file, revision=commit), attempts=1)  # type: ignore[misc]
    try:  # Asked for even if it is not listed: the cache then remembers that there is none.
        _patiently(name, lambda: hf_hub_download(name, POOLING, revision=commit), attempts=1)
    except RemoteEntryNotFoundError:
        logger.debug("%s does not say how it pools", name)
    return Path(hf_hub_download(name, "config.json", revision=commit)).parent


def _needed(files: list[str]) -> list[str]:
    """What a classifier is built from; pickled weights only where there are no others."""
    settings = [file for file in files if SETTINGS.fullmatch(file)]
    weights = [file for file in files if WEIGHTS.fullmatch(file)]
    return settings + (weights or [file for file in files if PICKLED.fullmatch(file)])


def _cached(name: str, commit: str) -> Path:
    from huggingface_hub import _CACHED_NO_EXIST, get_cached_repo_tree, try_to_load_from_cache
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    config = try_to_load_from_cache(name, "config.json", revision=commit)
    if not isinstance(config, str):
        raise TrainingError(f"commit {commit} of base model {name} is not in the cache, and HF_HUB_OFFLINE is set")
    pooling = try_to_load_from_cache(name, POOLING, revision=commit)
    if not isinstance(pooling, str) and pooling is not _CACHED_NO_EXIST:
        try:
            listed = [file.path for file in get_cached_repo_tree(name, revision=commit)]
        except CachedRepoTreeNotFoundError:
            listed = [POOLING]
        if POOLING in listed:
            raise TrainingError(
                f"the cache has base model {name} but not whether it pools by mean ({POOLING}), and HF_HUB_OFFLINE is "
                f"set: fetch all of it once with the hub in reach (hf download {name})"
            )
    return Path(config).parent


def _patiently(name: str, ask: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
    """An answer of the hub; it is asked again if it is busy or out of reach, and not for long.

    Downloads are asked for once: their own library asks again.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RemoteEntryNotFoundError

    wait = WAIT_SECONDS
    for attempt in range(1, attempts + 1):
        try:
            return ask()
        except RemoteEntryNotFoundError:
            raise
        except (HTTPError, OSError, HFValidationError) as error:
            found = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
            response = getattr(found, "response", None)
            status = int(response.status_code) if response is not None else 0
            passing = status in (0, 429) or status >= 500
            if not passing or isinstance(error, HFValidationError) or attempt == attempts:
                raise TrainingError(_why_not(name, status, found or error)) from error
            asked_for = (response.headers.get("Retry-After") or "") if response is not None else ""
            wait_now = min(float(asked_for), LONGEST_WAIT) if asked_for.isdigit() else wait
            logger.warning("the hub has no answer about %s yet (%s); asking again", name, _first_line(error))
            time.sleep(wait_now)
            wait *= 2
    raise AssertionError("unreachable")


def _why_not(name: str, status: int, error: BaseException) -> str:
    said = f"base model {name}: the Hugging Face hub "
    if status in (401, 403, 404):
        return (
            f"{said}does not know it or does not show it to us ({status}): correct base_model, or give the trainer a "
            "token that may read it (HF_TOKEN)"
        )
    if status:
        return f"{said}answered {status}, also when asked again: start the run again later"
    return (
        f"{said}cannot be reached ({_first_line(error)}): allow access to it, or set BERT_BASE_MODEL to an s3:// URI "
        "or models:/name@alias"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
