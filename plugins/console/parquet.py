"""Parquet, read by another process: it is nothing that a webserver should hold in memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PIECE_BYTES = 1 << 16
REJECTED = (sys.executable, "-m", "include.datasets.rejected_csv")
CHANGED = (sys.executable, "-m", "include.evaluation.changed")
WAITING = (sys.executable, "-m", "include.datasets.waiting_labels")
SECONDS = 60


def rejected_as_csv(uri: str) -> Iterator[bytes]:
    """All rejected rows of a file in quarantine, as CSV, piece by piece."""
    with subprocess.Popen([*REJECTED, uri], stdout=subprocess.PIPE, cwd=PROJECT) as program:
        assert program.stdout is not None
        try:
            while piece := program.stdout.read(PIECE_BYTES):
                yield piece
        finally:
            program.kill()  # if whoever downloads has gone away


def some_rejected(uri: str, offset: int, limit: int) -> list[dict[str, Any]]:
    """Some rejected rows, in order. Raises CalledProcessError."""
    options = ["--json", f"--offset={offset}", f"--limit={limit}"]
    done = subprocess.run([*REJECTED, uri, *options], stdout=subprocess.PIPE, check=True, timeout=SECONDS, cwd=PROJECT)
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def changed(old: str, new: str, label_mapping: dict[str, str]) -> dict[str, Any]:
    """What two versions answer differently, by the answers.parquet of each one's run; ``error`` if nothing compares."""
    options = [f"--mapping={json.dumps(label_mapping)}", old, new]
    done = subprocess.run([*CHANGED, *options], stdout=subprocess.PIPE, check=True, timeout=SECONDS, cwd=PROJECT)
    found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return found


def waiting_labels(model_name: str) -> dict[str, int]:
    """How many rows of each new label wait, the most first. Raises CalledProcessError."""
    done = subprocess.run([*WAITING, model_name], stdout=subprocess.PIPE, check=True, timeout=SECONDS, cwd=PROJECT)
    found: dict[str, int] = json.loads(done.stdout.decode().splitlines()[-1])
    return found
