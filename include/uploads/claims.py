"""Claims each upload exactly once, whatever else happens in the bucket meanwhile.

An upload is a key with an ETag. The order of writes makes every crash harmless:

1. ``claims/index/<hash>`` is created with If-None-Match: one listener wins, all others see whose it is;
2. the object is copied into the winner's batch, on condition that its ETag is still the same;
3. the batch is *sealed*: its manifest is created, again with If-None-Match. From here on it is a batch;
4. the object is deleted from ``incoming/``, on condition that its ETag is still the same.

Killed before 3, nothing has left ``incoming/`` and the next listener finishes or repeats the work. Killed after 3, the
next one finds the object in a sealed batch and only deletes it. An upload that is overwritten in between fails the
condition and is left for the next claim. If a batch was sealed without an upload that its index names (it was
overwritten, and later the old content came back), the next generation of the index decides anew: nothing in the index
is ever deleted.
"""

import hashlib
import logging
import posixpath
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from include import lake
from include.settings import settings

logger = logging.getLogger(__name__)

UNFINISHED_SUFFIXES = (".part", ".partial", ".tmp", ".filepart", ".crdownload", ".uploading", "._copying_")
LONGEST_WAIT_SECONDS = 30.0
OTHERS_WAIT_SECONDS = 10.0  # while all there is belongs to another listener, which may be dead


class Upload(BaseModel):
    """One object in ``incoming/``."""

    model_config = ConfigDict(frozen=True)

    key: str
    etag: str
    size: int
    last_modified: datetime

    @property
    def unfinished_name(self) -> bool:
        """Whether the name says that its writer has not finished: ``x.csv.part``, ``.hidden``."""
        name = posixpath.basename(self.key).lower()
        return name.endswith(UNFINISHED_SUFFIXES) or name.startswith((".", "~"))


class ClaimedFile(BaseModel):
    """A file that a batch owns: where it came from and where it lies now."""

    model_config = ConfigDict(frozen=True)

    key: str
    etag: str
    size: int
    uri: str
    claimed_at: datetime


class ClaimError(RuntimeError):
    """An upload cannot be claimed; the message says which, why and what to do."""


class Batch(BaseModel):
    """Files claimed together; the content of ``claims/<batch_id>/manifest.json``."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    files: list[ClaimedFile]


class _IndexEntry(BaseModel):
    batch_id: str
    key: str
    etag: str
    claimed_at: datetime


def batch_id_of(timestamp: str, caller: str) -> str:
    """A caller's batch id: in order of time, the same each time the caller repeats itself, fit for any file name."""
    return f"{timestamp}-{hashlib.sha256(caller.encode()).hexdigest()[:8]}"


def claim_uploads(batch_id: str, sleep: Callable[[float], None] = time.sleep) -> list[Batch]:
    """Claims all finished uploads as one batch and takes over what dead listeners left half done.

    ``batch_id`` is the caller's, the same each time the same caller repeats itself. Returns the batches sealed for
    this caller; empty if there was nothing to claim. Waits a little if all uploads are still being written.
    """
    client = _client()
    mine = read_batch(batch_id)
    if mine is None:
        _wait_for_finished_upload(client, sleep)
    sealed = [] if mine is None else [mine]
    for owner, uploads in _by_owner(list(_uploads(client)), batch_id, may_claim=mine is None).items():
        batch = _seal(client, owner, uploads)
        if batch is not None:
            sealed.append(batch)
    sealed += _clear_sealed(client, {batch.batch_id for batch in sealed})
    if not sealed and any(_uploads(client)):
        sleep(OTHERS_WAIT_SECONDS)
    return sealed


def has_uploads() -> bool:
    """Whether anything lies in ``incoming/``, finished or not."""
    return any(True for _ in _list(_client()))


def read_batch(batch_id: str) -> Batch | None:
    """A sealed batch; None if it is not sealed (yet)."""
    uri = lake.claims(batch_id, "manifest.json")
    return Batch.model_validate_json(lake.read_bytes(uri)) if lake.exists(uri) else None


def waiting_batches() -> list[Batch]:
    """Sealed batches that no run has taken, oldest first."""
    taken = set(_batches_with("run.json"))
    waiting = [batch_id for batch_id in _batches_with("manifest.json") if batch_id not in taken]
    return [batch for batch_id in waiting if (batch := read_batch(batch_id)) is not None]


def take(batch_id: str, run_id: str) -> bool:
    """Marks a batch as used by a run, once and for all; False if another run has it."""
    uri = lake.claims(batch_id, "run.json")
    return lake.create_json(uri, {"run_id": run_id}) or lake.read_json(uri)["run_id"] == run_id


def batches_of(run_id: str) -> list[Batch]:
    """The batches a run has taken, oldest first."""
    taken = _batches_with("run.json")
    mine = [batch_id for batch_id in taken if lake.read_json(lake.claims(batch_id, "run.json"))["run_id"] == run_id]
    return [batch for batch_id in mine if (batch := read_batch(batch_id)) is not None]


def _batches_with(name: str) -> list[str]:
    """The batches that have this file of ours: not one of a user's that is called the same."""
    claimed = lake.claims()
    parts = [uri.removeprefix(claimed).split("/") for uri in lake.find(claimed)]
    return [batch_id for batch_id, *rest in parts if rest == [name]]


def _client() -> Any:
    import boto3

    return boto3.client("s3")


def _bucket() -> str:
    return urlsplit(lake.root()).netloc


def _list(client: Any) -> Iterator[tuple[Upload, datetime]]:
    """All objects in incoming/ with the server's own time, so that clocks need not agree."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=_bucket(), Prefix="incoming/")
    for page in pages:
        now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
        now = now if now.tzinfo else now.replace(tzinfo=UTC)
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # a folder marker of some S3 browser
                yield (
                    Upload(
                        key=item["Key"],
                        etag=item["ETag"].strip('"'),
                        size=item["Size"],
                        last_modified=item["LastModified"],
                    ),
                    now,
                )


def _uploads(client: Any) -> Iterator[Upload]:
    """The finished uploads."""
    return (upload for upload, now in _list(client) if _remaining_seconds(upload, now) <= 0)


def _remaining_seconds(upload: Upload, now: datetime) -> float:
    """How long an upload is still taken for unfinished."""
    limit = settings().upload_unfinished_minutes * 60 if upload.unfinished_name else settings().upload_settle_seconds
    return limit - (now - upload.last_modified).total_seconds()


def _wait_for_finished_upload(client: Any, sleep: Callable[[float], None]) -> None:
    """Sleeps until the first upload counts as finished, so that a listener does not spin on one being written."""
    remaining = [_remaining_seconds(upload, now) for upload, now in _list(client)]
    if remaining and min(remaining) > 0:
        logger.info("%d upload(s) may still be written; waiting", len(remaining))
        # The Date header has whole seconds only.
        sleep(min(min(remaining) + 1.0, LONGEST_WAIT_SECONDS))


def _by_owner(uploads: list[Upload], batch_id: str, *, may_claim: bool) -> dict[str, list[Upload]]:
    """The unsealed batches this caller is to seal, each with the uploads that belong to it."""
    owned: dict[str, list[Upload]] = {}
    for upload in uploads:
        entry = _owner(upload, batch_id if may_claim else None)
        if entry is None or read_batch(entry.batch_id) is not None:
            continue
        if entry.batch_id == batch_id or _age_seconds(entry) > settings().claim_lease_seconds:
            owned.setdefault(entry.batch_id, []).append(upload)
        else:
            logger.info("%s is being claimed as %s by another listener", upload.key, entry.batch_id)
    return owned


def _owner(upload: Upload, batch_id: str | None) -> _IndexEntry | None:
    """Who owns an upload, after trying to own it; with no batch_id only who owns it by now."""
    generation = 0
    while True:
        uri = lake.claim_index(upload.key, upload.etag, generation)
        if batch_id is not None:
            entry = _IndexEntry(batch_id=batch_id, key=upload.key, etag=upload.etag, claimed_at=datetime.now(UTC))
            if lake.create_bytes(uri, entry.model_dump_json().encode()):
                return entry
        elif not lake.exists(uri):
            return None
        entry = _IndexEntry.model_validate_json(lake.read_bytes(uri))
        batch = read_batch(entry.batch_id)
        if batch is None or _holds(batch, upload):
            return entry
        generation += 1


def _holds(batch: Batch, upload: Upload) -> bool:
    return any((file.key, file.etag) == (upload.key, upload.etag) for file in batch.files)


def _seal(client: Any, batch_id: str, uploads: list[Upload]) -> Batch | None:
    """Copies a batch's files and writes its manifest; None if nothing was left to copy or another sealed it.

    A file that S3 does not let be copied stays in incoming/ and keeps no other from being claimed; alone, it raises
    ClaimError.
    """
    files, refused = [], []
    for upload in uploads:
        try:
            file = _copy(client, batch_id, upload)
        except ClaimError as error:
            logger.error("%s", error)
            refused.append(error)
        else:
            files += [file] if file else []
    if refused and not files:
        raise refused[0]
    if not files:
        return None
    batch = Batch(batch_id=batch_id, files=files)
    if not lake.create_bytes(lake.claims(batch_id, "manifest.json"), batch.model_dump_json(indent=2).encode()):
        return None
    for file in files:
        logger.info("claimed s3://%s/%s (%d bytes) as %s", _bucket(), file.key, file.size, batch_id)
    return batch


def _copy(client: Any, batch_id: str, upload: Upload) -> ClaimedFile | None:
    """Copies an upload into its batch unless it was overwritten or deleted since it was listed. Raises ClaimError."""
    from botocore.exceptions import ClientError

    # The ETag in the path keeps two versions of one key apart.
    name = f"files/{upload.etag[:12]}/{lake.plain(upload.key.removeprefix('incoming/'))}"
    target = lake.claims(batch_id, name)
    try:
        # boto3's managed copy: objects over 5 GB go in parts.
        client.copy(
            {"Bucket": _bucket(), "Key": upload.key},
            _bucket(),
            target.removeprefix(f"{lake.root()}/"),
            # Its tags stay behind: to copy them takes two more permissions.
            ExtraArgs={"CopySourceIfMatch": f'"{upload.etag}"', "TaggingDirective": "REPLACE"},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in {"PreconditionFailed", "412", "404", "NoSuchKey"}:
            logger.info("%s was overwritten or deleted while it was claimed; left for the next claim", upload.key)
            return None
        raise ClaimError(
            f"S3 does not let {upload.key} be copied ({error}); it stays there and is tried again. Give Airflow the "
            "right to read it, bring it back from an archive tier, or delete it"
        ) from error
    return ClaimedFile(key=upload.key, etag=upload.etag, size=upload.size, uri=target, claimed_at=datetime.now(UTC))


def _clear_sealed(client: Any, mine: set[str]) -> list[Batch]:
    """Deletes from incoming/ what lies in sealed batches, and returns those of them that nobody was told about.

    Another listener's batch that no run has taken is left to it for the length of a lease. After that it is dead, and
    may have ended before it told anyone.
    """
    untold: dict[str, Batch] = {}
    for upload in list(_uploads(client)):
        entry = _owner(upload, None)
        batch = read_batch(entry.batch_id) if entry is not None else None
        if entry is None or batch is None or not _holds(batch, upload):
            continue
        if lake.exists(lake.claims(batch.batch_id, "run.json")):
            logger.warning(
                "%s is the same file as in batch %s, which was used; to train on it again, start a run on %s",
                upload.key, batch.batch_id, lake.claims(batch.batch_id, "files/"),
            )  # fmt: skip
        elif batch.batch_id not in mine:
            if _age_seconds(entry) <= settings().claim_lease_seconds:
                continue
            untold[batch.batch_id] = batch
        _delete(client, upload)
    return list(untold.values())


def _age_seconds(entry: _IndexEntry) -> float:
    return (datetime.now(UTC) - entry.claimed_at).total_seconds()


def _delete(client: Any, upload: Upload) -> None:
    """Deletes an upload from incoming/ unless it was overwritten meanwhile."""
    from botocore.exceptions import ClientError

    try:
        client.delete_object(Bucket=_bucket(), Key=upload.key, IfMatch=f'"{upload.etag}"')
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"PreconditionFailed", "412", "404", "NoSuchKey"}:
            raise
        logger.info("%s was overwritten after it was claimed; the new upload stays", upload.key)
