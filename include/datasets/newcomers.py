"""Rows whose label is too new: kept as they were judged, and judged again with each later upload until they count."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from include import lake, objects
from include.datasets.checks import CHECKED
from include.datasets.judging import Numbers, Rows
from include.datasets.spool import Spooled, judged_batches

_KEY, _BATCH = b"key", b"batch_id"


def keep(rows: Rows, files: Mapping[int, tuple[str, str, Spooled]], chosen: Numbers, run_id: str, folder: Path) -> None:
    """Writes the chosen (n,) rows to a run's staging, a file for each that they come from.

    ``files`` are keys, batches and spooled rows by the number of the file, in the order of ``rows``.
    """
    at = 0
    for number, (key, batch_id, file) in files.items():
        mine = chosen[at : at + file.rows]
        at += file.rows
        if not mine.any():
            continue
        schema = CHECKED.with_metadata({_KEY: key.encode(), _BATCH: batch_id.encode()})
        path, start = folder / f"waits-{number}.arrow", 0
        with pa.ipc.new_file(str(path), schema) as writer:
            for batch in judged_batches(file):
                some = batch.filter(pa.array(mine[start : start + batch.num_rows]))
                start += batch.num_rows
                writer.write_batch(some.replace_schema_metadata(schema.metadata))
        objects.upload_file(path, lake.staging(run_id, f"waits/{number}.arrow"))


def publish(model_name: str, run_id: str, before: Iterable[str], joined: Iterable[str] = ()) -> None:
    """Makes the rows that a run has kept those that wait, in place of the files that waited ``before`` it.

    Those of which rows have ``joined`` are set aside: a rollback may leave these rows. Repeated, it changes nothing.
    """
    for uri in objects.find(lake.staging(run_id, "waits/")):
        name = f"{lake.slug(run_id)}-{uri.rsplit('/', 1)[-1]}"
        objects.write_bytes(lake.waiting(model_name, name), objects.read_bytes(uri))
    joined = set(joined)
    set_aside(model_name, run_id, joined)
    for uri in set(before) - joined:
        objects.delete(uri)


def set_aside(model_name: str, run_id: str, uris: Iterable[str]) -> None:
    """Keeps rows from those that wait: a challenger has learnt them, or was made worse by them, as each later one."""
    for uri in uris:
        _move(uri, lake.waiting(model_name, f"{lake.ASIDE}{lake.slug(run_id)}/{uri.rsplit('/', 1)[-1]}"))


def take_back(model_name: str, run_id: str) -> list[str]:
    """Lets the rows wait again that a run has set aside; returns their new URIs."""
    found = objects.find(lake.waiting(model_name, f"{lake.ASIDE}{lake.slug(run_id)}/"))
    return [_move(uri, lake.waiting(model_name, uri.rsplit("/", 1)[-1])) for uri in found]


def _move(uri: str, target: str) -> str:
    if objects.exists(uri):
        objects.write_bytes(target, objects.read_bytes(uri))
        objects.delete(uri)
    return target


def waiting(model_name: str) -> list[tuple[str, str, str]]:
    """The URIs of the files that wait, with the key and the batch that each comes from."""
    found = []
    for uri in objects.find(lake.waiting(model_name)):
        if not uri.startswith(lake.waiting(model_name, lake.ASIDE)):
            metadata = pa.ipc.open_file(objects.read_bytes(uri)).schema.metadata
            found.append((uri, metadata[_KEY].decode(), metadata[_BATCH].decode()))
    return found


def spooled(uri: str, path: Path) -> Spooled:
    """A file that waits, as if it had just been read. Raises FileNotFoundError if it waits no longer."""
    objects.download_file(uri, path)
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        rows = sum(reader.get_batch(at).num_rows for at in range(reader.num_record_batches))
    return Spooled(rows=rows, targets=[path])
