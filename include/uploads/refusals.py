"""Uploads that S3 does not let be copied: archived ones, and those that Airflow has no right to read.

They stay in ``incoming/`` and stop no other. What is known of each lies in ``claims/refused/``, and each is tried again
after a while: a claim that tried it every time would give it a new generation of its index every time.
"""

import logging
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from include import lake, objects
from include.uploads.open_batches import in_parallel
from include.uploads.records import Upload

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
PRECISION = timedelta(seconds=1)  # of the times that S3 gives


class Refusal(BaseModel):
    """One upload that cannot be copied, and when it was last tried."""

    key: str
    etag: str
    reason: str
    since: datetime
    tried: datetime
    tries: int

    @property
    def next_try(self) -> datetime:
        """When it is time to try again."""
        pause: timedelta = min(FIRST_PAUSE * 2 ** (min(self.tries, 10) - 1), LONGEST_PAUSE)
        return self.tried + pause


def known() -> list[Refusal]:
    """All of them."""
    return in_parallel(_read, objects.find(lake.refused()))


def split(uploads: list[Upload]) -> tuple[list[Upload], list[str]]:
    """The uploads that may be tried, and why the others are not; forgets what is no longer there.

    One that was written anew since it was refused, as after it came back from an archive, is tried at once.
    """
    found = {(refusal.key, refusal.etag): refusal for refusal in known()}
    if not found:
        return uploads, []
    there = {(upload.key, upload.etag): upload for upload in uploads}
    for key, etag in found.keys() - there.keys():
        _forget(key, etag)
    now = datetime.now(UTC)
    waiting = {
        place: refusal.reason
        for place, refusal in found.items()
        if place in there and refusal.tried - PRECISION >= there[place].last_modified and now < refusal.next_try
    }
    return [upload for upload in uploads if (upload.key, upload.etag) not in waiting], list(waiting.values())


def note(upload: Upload, reason: str) -> None:
    """Keeps that an upload was refused (again)."""
    uri, now = lake.refused(upload.key, upload.etag), datetime.now(UTC)
    before = _read(uri) if objects.exists(uri) else None
    refusal = Refusal(
        key=upload.key,
        etag=upload.etag,
        reason=reason,
        since=before.since if before else now,
        tried=now,
        tries=before.tries + 1 if before else 1,
    )
    objects.write_bytes(uri, refusal.model_dump_json(indent=2).encode())


def _forget(key: str, etag: str) -> None:
    logger.info("%s was refused before, and is no longer there", key)
    objects.delete(lake.refused(key, etag))


def _read(uri: str) -> Refusal:
    return Refusal.model_validate_json(objects.read_bytes(uri))
