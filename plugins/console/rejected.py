"""Rejected rows, read by another process: Parquet is nothing that a webserver should hold in memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PIECE_BYTES = 1 << 16
PROGRAM = (sys.executable, "-m", "include.datasets.rejected_csv")


def as_csv(uri: str) -> Iterator[bytes]:
    """All rejected rows of a file in quarantine, as CSV, piece by piece."""
    with subprocess.Popen([*PROGRAM, uri], stdout=subprocess.PIPE, cwd=PROJECT) as program:
        assert program.stdout is not None
        try:
            while piece := program.stdout.read(PIECE_BYTES):
                yield piece
        finally:
            program.kill()  # if whoever downloads has gone away


def some(uri: str, offset: int, limit: int) -> list[dict[str, Any]]:
    """Some of them, in order. Raises CalledProcessError."""
    options = ["--json", f"--offset={offset}", f"--limit={limit}"]
    done = subprocess.run([*PROGRAM, uri, *options], stdout=subprocess.PIPE, check=True, timeout=60, cwd=PROJECT)
    return [json.loads(line) for line in done.stdout.decode().splitlines()]
