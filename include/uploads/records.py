"""What uploads and batches are, and what one round of a listener has read of them."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from include import lake, objects
from include.datasets.names import has_unfinished_name
from include.uploads import lifecycle
from include.uploads.lifecycle import ENDS, Entry

logger = logging.getLogger(__name__)


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
        return has_unfinished_name(self.key)

    @property
    def mark(self) -> str:
        """The upload in one word: its key with its ETag."""
        return f"{self.etag} {self.key}"


class ClaimedFile(BaseModel):
    """A file that a batch owns: where it came from and where it lies now."""

    model_config = ConfigDict(frozen=True)

    key: str
    etag: str
    size: int
    uri: str
    claimed_at: datetime

    @property
    def mark(self) -> str:
        """ETag and key, by which the same upload is known again."""
        return f"{self.etag} {self.key}"


class ClaimError(RuntimeError):
    """An upload cannot be claimed; the message says which, why and what to do."""


class Batch(BaseModel):
    """Files claimed together; the content of ``claims/<batch_id>/manifest.json``."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    files: list[ClaimedFile]
    origin: str = "upload"


def read_batch(batch_id: str) -> Batch | None:
    """A sealed batch; None if it is not sealed (yet), or if somebody has damaged its manifest: that is logged."""
    uri = lake.claims(batch_id, "manifest.json")
    try:
        return Batch.model_validate_json(objects.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValidationError as error:  # it must not keep the other batches from being used
        logger.error("%s is damaged: %s", uri, error)
        return None


class Round:
    """What has been read of batches in one go, by however many threads: each manifest and each life once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read: dict[tuple[str, str], Future[Any]] = {}

    def batch(self, batch_id: str) -> Batch | None:
        """A sealed batch; None if it was not sealed when this was first asked."""
        found: Batch | None = self._once("batch", batch_id, lambda: read_batch(batch_id))
        return found

    def life(self, batch_id: str) -> Entry:
        """Where a sealed batch stood when this was first asked."""
        entry: Entry = self._once("life", batch_id, lambda: lifecycle.read(batch_id))
        return entry

    def holds(self, batch_id: str, upload: Upload) -> bool:
        """Whether a batch is sealed and has this upload among its files."""
        marks: frozenset[str] = self._once("marks", batch_id, lambda: self._marks(batch_id))
        return upload.mark in marks

    def may_come_again(self, batch_id: str, upload: Upload) -> bool:
        """Whether a batch has ended and no row of this upload was used."""
        life = self.life(batch_id)
        return life.state in ENDS and upload.mark in life.again

    def forget_unsealed(self) -> None:
        """Asks again of the batches that were not sealed: they may be by now."""
        with self._lock:
            unsealed = [
                batch_id for (what, batch_id), one in self._read.items() if what == "batch" and not one.result()
            ]
            for batch_id in unsealed:
                for what in ("batch", "life", "marks"):
                    self._read.pop((what, batch_id), None)

    def _marks(self, batch_id: str) -> frozenset[str]:
        batch = self.batch(batch_id)
        return frozenset(file.mark for file in batch.files) if batch else frozenset()

    def _once(self, what: str, batch_id: str, read: Callable[[], Any]) -> Any:
        with self._lock:
            future = self._read.get((what, batch_id))
            if is_mine := future is None:
                future = self._read[what, batch_id] = Future()
        if is_mine:
            try:
                future.set_result(read())
            except BaseException as error:
                future.set_exception(error)
        return future.result()
