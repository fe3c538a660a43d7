"""Which batches have not reached an end: ``claims/open/<batch_id>``, so that no look at them costs more with history.

A batch's mark is put before its manifest, and taken away after its end. Cut off in between, a mark without a batch is
passed over and one of an ended batch is taken away by whoever sees it; only a batch without its mark would be lost, and
there is none.
"""

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from include import lake, objects
from include.uploads import lifecycle
from include.uploads.lifecycle import ENDS, Entry
from include.uploads.records import read_batch

logger = logging.getLogger(__name__)

AT_ONCE = 16
One = TypeVar("One")
Found = TypeVar("Found")


def in_parallel(work: Callable[[One], Found], on: Iterable[One]) -> list[Found]:
    """Each one's result, in order; a few requests to S3 at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, on))


def ids() -> list[str]:
    """The batches that have a mark, oldest first."""
    return [uri.rsplit("/", 1)[-1] for uri in objects.find(lake.open_batch())]


def lives() -> list[Entry]:
    """Where each open batch stands, oldest first; takes away the marks of ended ones."""
    found = in_parallel(_life, ids())
    for entry in found:
        if entry is not None and entry.state in ENDS:
            close(entry.batch_id)
    return [entry for entry in found if entry is not None and entry.state not in ENDS]


def damaged() -> list[str]:
    """The open batches that somebody has damaged, oldest first: nothing moves them until they are whole again."""
    return [one for one in ids() if objects.exists(lake.claims(one, "manifest.json")) and read_batch(one) is None]


def _life(batch_id: str) -> Entry | None:
    return lifecycle.read(batch_id) if read_batch(batch_id) is not None else None


def mark(batch_id: str) -> None:
    """Opens a batch. A mark that is there is replaced, so that nobody who saw the old one takes it away."""
    mark = {"since": datetime.now(UTC).isoformat(), "id": uuid4().hex}
    objects.write_bytes(lake.open_batch(batch_id), json.dumps(mark).encode())


def close(batch_id: str) -> None:
    """Takes a batch's mark away if it has reached an end, and nobody opens it meanwhile."""
    uri = lake.open_batch(batch_id)
    etag = objects.etag(uri)
    if etag is not None and lifecycle.read(batch_id).state in ENDS:
        try:
            objects.delete(uri, etag)
        except PermissionError as error:  # costs a request at each look, and nothing else
            logger.warning("Airflow may not delete %s (s3:DeleteObject on claims/): %s", uri, error)
