"""Whether the S3 store keeps the promises on which exactly-once rests; asked once per store, before the first claim."""

import logging
from uuid import uuid4

from include import lake, objects
from include.settings import settings

logger = logging.getLogger(__name__)


class UnfitStoreError(RuntimeError):
    """The store ignores a condition, so two listeners could claim one upload, or a new upload could be deleted."""


def require_fit_store() -> None:
    """Tries If-None-Match on put and If-Match on delete, unless this store has passed. Raises UnfitStoreError."""
    passed = lake.root() + "/claims/probe/passed.json"
    store = {"endpoint": endpoint(), "bucket": settings().bucket}
    if objects.exists(passed) and objects.read_json(passed) == store:
        return
    if probe(store["endpoint"]):
        objects.write_json(passed, store)


def probe(store: str) -> bool:
    """Puts an object twice and deletes it under a wrong condition. Raises UnfitStoreError naming the store.

    False if Airflow may not delete what it has put, so that the second could not be tried.
    """
    uri = f"{lake.root()}/claims/probe/{uuid4().hex}"
    objects.create_bytes(uri, b"first")
    try:
        created_again = objects.create_bytes(uri, b"second") or objects.read_bytes(uri) != b"first"
        if created_again:
            raise UnfitStoreError(_sentence(store, "If-None-Match when an object is put", "be claimed twice"))
        if objects.delete(uri, "0" * 32) or not objects.exists(uri):
            raise UnfitStoreError(
                _sentence(store, "If-Match when an object is deleted", "be deleted though it was just overwritten")
            )
        objects.delete(uri)
    except PermissionError as error:
        logger.error("Airflow lacks the right s3:DeleteObject on claims/ (see terraform/iam.tf): %s", error)
        return False
    logger.info("the S3 store at %s honours If-None-Match and If-Match", store)
    return True


def endpoint() -> str:
    """The store's address as the AWS SDK has found it."""
    import boto3

    return str(boto3.client("s3").meta.endpoint_url)


def _sentence(store: str, condition: str, harm: str) -> str:
    return (
        f"the S3 store at {store} ignores {condition}, so an upload could {harm}. Nothing is claimed. Use Amazon S3 or "
        "another store that has conditional writes and deletes in a version that does (AWS_ENDPOINT_URL), and look "
        "whether a proxy in front of it drops the header"
    )
