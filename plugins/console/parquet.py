"""Parquet and Arrow, read by another process: they are nothing that a webserver should import, or hold in memory.

The process is given files of this machine and not addresses: what reads S3 takes longer to import than all the rest.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from include import lake, objects
from include.uploads.open_batches import in_parallel

PROJECT = Path(__file__).parents[2]
PIECE_BYTES = 1 << 16
REJECTED = "include.datasets.rejected_csv"
CHANGED = "include.evaluation.changed"
WAITING = "include.datasets.waiting_labels"
SECONDS = 60
LARGE_BYTES = 32 << 20
"""Rejected rows beyond that stay in the bucket, of which the program, with a client of its own, reads what it needs."""


def rejected_as_csv(uri: str) -> Iterator[bytes]:
    """All rejected rows of a file in quarantine, as CSV, piece by piece."""
    with (
        _at_hand(uri) as paths,
        subprocess.Popen(_command(REJECTED, *paths), stdout=subprocess.PIPE, cwd=PROJECT) as program,
    ):
        assert program.stdout is not None
        try:
            while piece := program.stdout.read(PIECE_BYTES):
                yield piece
        finally:
            program.kill()  # if whoever downloads has gone away


def some_rejected(uri: str, offset: int, limit: int) -> list[dict[str, Any]]:
    """Some rejected rows, in order. Raises CalledProcessError."""
    with _at_hand(uri) as paths:
        lines = _said(REJECTED, paths, "--json", f"--offset={offset}", f"--limit={limit}")
    return [json.loads(line) for line in lines]


def changed(old: str, new: str, label_mapping: dict[str, str]) -> dict[str, Any]:
    """What two versions answer differently, by the answers.parquet of each one's run; ``error`` if nothing compares."""
    with _on_disk([old, new]) as paths:
        found: dict[str, Any] = json.loads(_said(CHANGED, paths, f"--mapping={json.dumps(label_mapping)}")[-1])
    return found


def waiting_labels(model_name: str) -> dict[str, int]:
    """How many rows of each new label wait, the most first. Raises CalledProcessError."""
    aside = lake.waiting(model_name, lake.ASIDE)
    uris = [uri for uri in objects.find(lake.waiting(model_name)) if not uri.startswith(aside)]
    if not uris:
        return {}
    with _on_disk(uris) as paths:
        found: dict[str, int] = json.loads(_said(WAITING, paths)[-1])
    return found


def _said(module: str, paths: Sequence[str], *options: str) -> list[str]:
    """The lines that a program writes of some files. Raises CalledProcessError."""
    command = _command(module, *options, *paths)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=SECONDS, cwd=PROJECT)
    return done.stdout.decode().splitlines()


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def _at_hand(uri: str) -> Iterator[list[str]]:
    """An object's path on this machine or, if it is large, its URI."""
    if int(objects.filesystem(uri).info(uri)["size"]) > LARGE_BYTES:
        yield [uri]
        return
    with _on_disk([uri]) as paths:
        yield paths


@contextmanager
def _on_disk(uris: Sequence[str]) -> Iterator[list[str]]:
    """Objects as files of this machine, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(uris))]
        in_parallel(lambda one: objects.download_file(*one), zip(uris, paths, strict=True))
        yield [str(path) for path in paths]
