"""Batches that nobody uploaded: rows that the project itself found, sealed like an upload's files."""

from datetime import UTC, datetime

from include import lake, objects
from include.uploads import lifecycle, open_batches
from include.uploads.lifecycle import State, Who
from include.uploads.records import Batch, ClaimedFile, read_batch


def seal(batch_id: str, key: str, uri: str, *, origin: str, run_id: str = "") -> Batch:
    """Makes a batch of an object; with a ``run_id`` it is that run's from its first moment. Repeated, it is the same.

    ``key`` is what the file is called in reports. Without a run the listener tells the pipeline of the batch.
    """
    found = read_batch(batch_id)
    if found is not None:
        return found
    target = lake.claims(batch_id, f"files/{lake.plain(key.rsplit('/', 1)[-1])}")
    files = objects.filesystem(uri)
    files.cp_file(uri, target)
    file = ClaimedFile(
        key=key,
        etag=objects.etag(target) or "",
        size=int(files.info(target)["size"]),
        uri=target,
        claimed_at=datetime.now(UTC),
    )
    open_batches.mark(batch_id)
    if run_id:  # before it is a batch, so that no other run takes it
        lifecycle.move(batch_id, State.TAKEN, Who.RUN, run_id=run_id)
    batch = Batch(batch_id=batch_id, files=[file], origin=origin)
    objects.create_bytes(lake.claims(batch_id, "manifest.json"), batch.model_dump_json(indent=2).encode())
    return batch
