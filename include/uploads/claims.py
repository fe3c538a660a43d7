"""Claims each upload exactly once, whatever else happens in the bucket meanwhile.

An upload is a key with an ETag. The order of writes makes every crash harmless:

1. ``claims/index/<hash>`` is created with If-None-Match: one listener wins, all others see whose it is;
2. the object is copied into the winner's batch, on condition that its ETag is still the same;
3. the batch is marked as open, and then *sealed*: its manifest is created, again with If-None-Match. From here on it
   is a batch, and ``lifecycle`` says what becomes of it;
4. the object is deleted from ``incoming/``, on condition that its ETag is still the same.

Killed before 3, nothing has left ``incoming/`` and the next listener finishes or repeats the work. Killed after 3, the
next one finds the object in a sealed batch and only deletes it. An upload that is overwritten in between fails the
condition and is left for the next claim. If a batch was sealed without an upload that its index names (it was
overwritten, and later the old content came back), or ended without a row of it used, the next generation of the index
decides anew.

No step costs more with what was claimed before: three requests per upload, and each manifest is read once.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from include import lake, objects
from include.datasets.names import is_debris, is_feedback
from include.settings import settings
from include.uploads import lifecycle, open_batches, refusals, rounds
from include.uploads.lifecycle import ENDS, State, Who
from include.uploads.open_batches import in_parallel
from include.uploads.records import Batch, ClaimedFile, ClaimError, Round, Upload, read_batch

__all__ = ["Batch", "ClaimError", "ClaimedFile", "Upload", "read_batch"]

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 30.0
OTHERS_WAIT_SECONDS = 10.0  # while all there is belongs to another listener, which may be dead
SERVER_ERROR = 500  # HTTP
ONE_REQUEST_BYTES = 64 << 20  # larger objects are copied in parts, side by side


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

    ``batch_id`` is the caller's, the same each time the same caller repeats itself. Returns the batches that the caller
    has to tell of: those sealed for it, and others whose files were uploaded again; empty if there was nothing to
    claim. Waits a little if all uploads are still being written. Raises ClaimError if S3 lets none of what lies there
    be copied.
    """
    client = _client()
    mine = read_batch(batch_id)
    if mine is None:
        _wait_for_finished_upload(client, sleep)
    sealed = [] if mine is None else [mine]
    tried, refused = refusals.split(list(_uploads(client)))
    known = Round()
    for owner, owned in _by_owner(tried, batch_id, known, may_claim=mine is None).items():
        batch = _seal(client, owner, owned, refused)
        if batch is not None:
            sealed.append(batch)
    known.forget_unsealed()
    sealed += _clear_sealed(client, {batch.batch_id for batch in sealed}, known)
    if not sealed and refused:
        raise ClaimError("; ".join(refused))
    if not sealed and any(_uploads(client)):
        sleep(OTHERS_WAIT_SECONDS)
    return sealed


def has_uploads() -> bool:
    """Whether anything lies in ``incoming/``, finished or not."""
    return any(True for _ in _list(_client()))


def uploads() -> list[Upload]:
    """What a claim would find now: the finished uploads."""
    return list(_uploads(_client()))


def waiting_batches() -> list[Batch]:
    """Sealed batches that a run which starts now takes, oldest first; ``rounds.joining`` says which of them."""
    return _read(entry.batch_id for entry in rounds.joining(open_batches.lives()))


def take(batch_id: str, run_id: str) -> bool:
    """Gives a batch to a run; False if another run has it or had it last."""
    entry = lifecycle.move(batch_id, State.TAKEN, Who.RUN, run_id=run_id) or lifecycle.read(batch_id)
    return entry.run_id == run_id


def batches_of(run_id: str) -> list[Batch]:
    """The batches that a run has taken and not brought to an end, oldest first."""
    lives = open_batches.lives()
    return _read(entry.batch_id for entry in lives if entry.state is State.TAKEN and entry.run_id == run_id)


def _read(batch_ids: Iterator[str]) -> list[Batch]:
    return [batch for batch in in_parallel(read_batch, list(batch_ids)) if batch is not None]


def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(max_pool_connections=open_batches.AT_ONCE))


def _bucket() -> str:
    return urlsplit(lake.root()).netloc


def _list(client: Any) -> Iterator[tuple[Upload, datetime]]:
    """All data in incoming/, finished or not, with the server's own time, so that clocks need not agree."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=_bucket(), Prefix="incoming/")
    for page in pages:
        now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
        now = now if now.tzinfo else now.replace(tzinfo=UTC)
        for item in page.get("Contents", []):
            if not is_debris(item["Key"]):
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
    """The objects in ``incoming/`` that are not being written any more."""
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


def _by_owner(uploads: list[Upload], batch_id: str, known: Round, *, may_claim: bool) -> dict[str, list[Upload]]:
    """The unsealed batches this caller is to seal, each with the uploads that belong to it."""
    entries = in_parallel(lambda upload: _owner(upload, batch_id if may_claim else None, known), uploads)
    owned: dict[str, list[Upload]] = {}
    others: Counter[str] = Counter()
    for upload, entry in zip(uploads, entries, strict=True):
        if entry is None or known.batch(entry.batch_id) is not None:
            continue
        if entry.batch_id == batch_id or _age_seconds(entry) > settings().claim_lease_seconds:
            owned.setdefault(entry.batch_id, []).append(upload)
        else:
            others[entry.batch_id] += 1
    for owner, number in others.items():
        logger.info("%d upload(s) are being claimed as %s by another listener", number, owner)
    return owned


def _owner(upload: Upload, batch_id: str | None, known: Round) -> _IndexEntry | None:
    """Who owns an upload, after trying to own it; with no batch_id only who owns it by now."""
    generation = 0
    while True:
        uri = lake.claim_index(upload.key, upload.etag, generation)
        if batch_id is not None:
            entry = _IndexEntry(batch_id=batch_id, key=upload.key, etag=upload.etag, claimed_at=datetime.now(UTC))
            if objects.create_bytes(uri, entry.model_dump_json().encode()):
                return entry
        try:
            entry = _IndexEntry.model_validate_json(objects.read_bytes(uri))
        except FileNotFoundError:
            if batch_id is None:
                return None
            continue  # it has just expired
        if known.batch(entry.batch_id) is None:
            return entry
        if known.holds(entry.batch_id, upload) and not known.may_come_again(entry.batch_id, upload):
            return entry
        generation += 1


def _seal(client: Any, batch_id: str, uploads: list[Upload], refused: list[str]) -> Batch | None:
    """Copies a batch's files and writes its manifest; None if nothing was left to copy or another sealed it.

    A file that S3 does not let be copied stays in incoming/ and keeps no other from being claimed; ``refused`` is told
    why.
    """
    found = in_parallel(lambda upload: _copy_or_refuse(client, batch_id, upload), uploads)
    refused += [one for one in found if isinstance(one, str)]
    files = [one for one in found if isinstance(one, ClaimedFile)]
    if not files:
        return None
    origin = "feedback" if all(is_feedback(file.key) for file in files) else "upload"
    batch = Batch(batch_id=batch_id, files=files, origin=origin)
    open_batches.mark(batch_id)
    if not objects.create_bytes(lake.claims(batch_id, "manifest.json"), batch.model_dump_json(indent=2).encode()):
        return None
    open_batches.mark(batch_id)  # a sweep may have taken it for one of a listener that died long ago
    for file in files:
        logger.info("claimed s3://%s/%s (%d bytes) as %s", _bucket(), file.key, file.size, batch_id)
    return batch


def _copy_or_refuse(client: Any, batch_id: str, upload: Upload) -> ClaimedFile | str | None:
    try:
        file = _copy(client, batch_id, upload)
    except ClaimError as error:
        logger.error("%s", error)
        refusals.note(upload, str(error))
        return str(error)
    return file


def _copy(client: Any, batch_id: str, upload: Upload) -> ClaimedFile | None:
    """Copies an upload into its batch unless it was overwritten or deleted since it was listed. Raises ClaimError."""
    from botocore.exceptions import ClientError

    # The ETag in the path keeps two versions of one key apart.
    name = f"files/{upload.etag[:12]}/{lake.plain(upload.key.removeprefix('incoming/'))}"
    target = lake.claims(batch_id, name)
    source = {"Bucket": _bucket(), "Key": upload.key}
    key = target.removeprefix(f"{lake.root()}/")
    # Its tags stay behind: to copy them takes two more permissions.
    conditions = {"CopySourceIfMatch": f'"{upload.etag}"', "TaggingDirective": "REPLACE"}
    try:
        if upload.size <= ONE_REQUEST_BYTES:
            client.copy_object(CopySource=source, Bucket=_bucket(), Key=key, **conditions)
        else:  # boto3's managed copy: objects over 5 GB have to go in parts
            client.copy(source, _bucket(), key, ExtraArgs=conditions)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"PreconditionFailed", "412", "404", "NoSuchKey"}:
            logger.info("%s was overwritten or deleted while it was claimed; left for the next claim", upload.key)
            return None
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= SERVER_ERROR:
            advice = "S3 is busy or ails: nothing needs to be done unless that goes on"
        else:
            advice = "Give Airflow the right to read it, bring it back from an archive tier, or delete it"
        raise ClaimError(
            f"S3 does not let {upload.key} be copied ({error}); it stays there and is tried again. {advice}"
        ) from error
    return ClaimedFile(key=upload.key, etag=upload.etag, size=upload.size, uri=target, claimed_at=datetime.now(UTC))


def _clear_sealed(client: Any, mine: set[str], known: Round) -> list[Batch]:
    """Deletes from incoming/ what lies in sealed batches, and returns those of them that have to be told of (again).

    Another listener's batch that no run has taken is left to it for the length of a lease. After that it is dead, and
    may have ended before it told anyone. A file of a batch that was released is there because somebody wants it used.
    """
    untold = in_parallel(lambda upload: _clear(client, upload, mine, known), list(_uploads(client)))
    batches = [known.batch(batch_id) for batch_id in sorted({one for one in untold if one is not None})]
    return [batch for batch in batches if batch is not None]


def _clear(client: Any, upload: Upload, mine: set[str], known: Round) -> str | None:
    """Deletes an upload if a sealed batch has it; returns that batch if it has to be told of."""
    if any(known.holds(batch_id, upload) for batch_id in mine):
        _delete(client, upload)
        return None
    entry = _owner(upload, None, known)
    if entry is None or not known.holds(entry.batch_id, upload):
        return None
    batch_id, life = entry.batch_id, known.life(entry.batch_id)
    if life.waiting and life.state is not State.RELEASED and _age_seconds(entry) <= settings().claim_lease_seconds:
        return None
    _delete(client, upload)
    if life.waiting:
        return batch_id
    if life.state in ENDS:
        logger.warning(
            "%s is the same file as in batch %s, which was %s by run %s; to train on it again, %s", upload.key,
            batch_id, life.state, life.run_id, _way_back(batch_id, life.state, life.run_id),
        )  # fmt: skip
    else:
        logger.info("%s is the same file as in batch %s, which run %s is using", upload.key, batch_id, life.run_id)
    return None


def _way_back(batch_id: str, state: State, run_id: str) -> str:
    if state is State.SET_ASIDE:
        return f"take its rows back: make readmit RUN='{run_id}'"
    return f"start a run on {lake.claims(batch_id, 'files/')}"


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
