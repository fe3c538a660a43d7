"""The trainer as a process of a worker: forked, so that what the worker has imported need not be imported again."""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psutil
from setproctitle import setproctitle

if TYPE_CHECKING:
    from include.orchestration.training_notebook import Notebook

PROJECT = Path(__file__).parents[2]
LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ")


class TrainerProcess:
    """One run of the trainer's command, ``python -m include.training``, in a process and session of its own.

    With a ``notebook`` that trains the job.
    """

    def __init__(self, job_uri: str, notebook: "Notebook | None" = None) -> None:
        self.job_uri, self.notebook = job_uri, notebook
        self._process: psutil.Process | None = None

    def run(self, tell: Callable[[str], None]) -> tuple[int, str]:
        """Runs the command to its end.

        Args:
            tell: called with each line of its output.

        Returns:
            Its exit code, negative if a signal killed it, and the last line of its output.
        """
        reading, writing = os.pipe()
        # Not multiprocessing's: an executor's workers are daemons, and those must not have children in its books.
        pid = os.fork()
        if pid == 0:
            _train(self.job_uri, self.notebook, reading, writing)
        self._process = psutil.Process(pid)
        os.close(writing)
        line = ""
        with os.fdopen(reading, encoding="utf-8", errors="backslashreplace") as output:
            for written in output:
                line = written.rstrip()
                tell(line)
        return int(self._process.wait()), line

    def stop(self, seconds: float) -> bool:
        """Asks the trainer to save a checkpoint and to end; whether it did within so many seconds."""
        if self._process is None:
            return True
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except psutil.TimeoutExpired:
            return False
        return True


def failure(exit_code: int, last_line: str) -> str:
    """Why a trainer's process failed, and what to do about it; its last line says why if it ended by itself."""
    retry = "A retry goes on from the last checkpoint."
    if exit_code < 0:
        return (
            f"the trainer was killed by signal {-exit_code}, as for want of memory: a smaller batch_size or max_length "
            f"needs less. {retry}"
        )
    if exit_code in (130, 143):
        return f"the trainer was asked to stop and has saved a checkpoint (exit code {exit_code}). {retry}"
    said = LOG_PREFIX.sub("", last_line) or "it said nothing"
    return f"the trainer could not train the job (exit code {exit_code}): {said.rstrip('.')}. {retry}"


def _train(job_uri: str, notebook: "Notebook | None", reading: int, writing: int) -> NoReturn:
    """The process itself. Nothing of the worker's may act in it: no handler of signals or logs, nothing at its exit."""
    code = 1
    try:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        os.setsid()
        os.close(reading)
        for stream in (1, 2):
            os.dup2(writing, stream)
        os.close(writing)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, encoding="utf-8") for stream in (1, 2))
        os.chdir(PROJECT)
        setproctitle(f"include.training {job_uri}")
        _forget_logging()
        if notebook is not None:
            code = notebook.run(job_uri)
        else:
            from include.training.__main__ import main

            code = main([job_uri, "--stop-with-parent"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget_logging() -> None:
    """Leaves logging as a new process has it."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.filters.clear()
            logger.propagate = True
            logger.disabled = False
            logger.setLevel(logging.NOTSET)
