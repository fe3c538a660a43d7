"""One run of one side: a fresh process, its stopwatch, its peak memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dev.state import REPOSITORY

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
OTHERS_BUSY = 0.05  # of all cores: from here on the figures are said to come from a busy machine


class RunError(RuntimeError):
    """A measured process failed; the message shows the end of its log."""


@dataclass(frozen=True)
class Launch:
    """A program to be measured: its command, and what it needs in the environment."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    on_gpu: bool = False


@dataclass(frozen=True)
class Run:
    """What one process showed.

    Args:
        first_step: Seconds from the process's start to the end of its first optimizer step; 0.0 if it has none.
        steps: Timed optimizer steps.
        step_seconds: That they took.
        step_cpu_seconds: Of all cores, that they took.
        tokens: Of their texts, without padding.
        seconds: Of the whole process.
        peak_mib: Its largest resident memory.
        others: Share of all cores that other processes used just before it started.
    """

    first_step: float
    steps: int
    step_seconds: float
    step_cpu_seconds: float
    tokens: int
    seconds: float
    peak_mib: float
    others: float


def run(launch: Launch, folder: Path, *, first_step_only: bool = False) -> Run:
    """Runs a program and waits for it.

    Args:
        launch: The program; `timed` gives the command of one that trains.
        folder: For its log and the stopwatch's report.
        first_step_only: Whether to end it after its first optimizer step.

    Raises:
        RunError: it did not end well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = psutil.cpu_percent(interval=1) / 100
    started = time.time()
    process = _start(launch, folder)
    try:
        if first_step_only:
            _wait_for_file(_report(folder), process)
            os.killpg(process.pid, signal.SIGKILL)
        # Of this one process. Linux counts its peak from the size of its parent on, which is why that stays small.
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if status and not first_step_only:
        raise RunError(f"{' '.join(launch.command)} failed:\n{_log(folder).read_text()[-2000:]}")
    report = json.loads(_report(folder).read_text()) if _report(folder).exists() else {}
    return Run(
        first_step=round(report["first_step_at"] - started, 2) if report else 0.0,
        steps=report.get("steps", 0),
        step_seconds=round(report.get("seconds", 0.0), 3),
        step_cpu_seconds=round(report.get("cpu_seconds", 0.0), 3),
        tokens=report.get("tokens", 0),
        seconds=round(time.time() - started, 2),
        peak_mib=round(usage.ru_maxrss / 1024),
        others=round(others, 3),
    )


def timed(folder: Path, program: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a program of transformers' Trainer under a stopwatch, for `run` in the same folder."""
    return [sys.executable, "-m", "dev.bench.timed", str(_report(folder)), program, *arguments]


def _start(launch: Launch, folder: Path) -> subprocess.Popen[bytes]:
    with _log(folder).open("w") as output:
        return subprocess.Popen(
            launch.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, **({} if launch.on_gpu else NO_GPU), **launch.environment},
            start_new_session=True,
        )


def _wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        if process.poll() is not None:
            raise RunError(f"the process ended before its first step:\n{_log(path.parent).read_text()[-2000:]}")
        time.sleep(0.02)


def _report(folder: Path) -> Path:
    return folder / "stopwatch.json"


def _log(folder: Path) -> Path:
    return folder / "log.txt"
