"""A command as a process of a worker: forked, so that what the worker has imported need not be imported again."""

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil
from setproctitle import setproctitle

PROJECT = Path(__file__).parents[2]


class ForkedProcess:
    """A process and session of its own in which a command of this project runs once.

    Args:
        title: what the process is called.
        main: the command; it returns its exit code, and what it prints is its output.
    """

    def __init__(self, title: str, main: Callable[[], int]) -> None:
        self._title, self._main = title, main
        self._process: psutil.Process | None = None

    def run(
        self, tell: Callable[[str], None], watch: Callable[[psutil.Process], None] = lambda process: None
    ) -> tuple[int, str]:
        """Runs the command to its end.

        Args:
            tell: called with each line of its output.
            watch: called with the process once it runs; must not wait for it.

        Returns:
            Its exit code, negative if a signal killed it, and the last line of its output.
        """
        reading, writing = os.pipe()
        self._process = psutil.Process(_fork(lambda: self._become(reading, writing)))
        os.close(writing)
        watch(self._process)
        line = ""
        with os.fdopen(reading, encoding="utf-8", errors="backslashreplace") as output:
            for written in output:
                line = written.rstrip()
                tell(line)
        return int(self._process.wait()), line

    def stop(self, seconds: float) -> bool:
        """Asks the process to end (SIGTERM); whether it did within so many seconds."""
        if self._process is None:
            return True
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except psutil.TimeoutExpired:
            return False
        return True

    def _become(self, reading: int, writing: int) -> NoReturn:
        """The process itself. Nothing of the worker's may act in it: no handler of signals or logs, nothing at its
        exit."""
        code = 1
        try:
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            os.setsid()
            os.close(reading)
            for stream in (1, 2):
                os.dup2(writing, stream)
            os.close(writing)
            # Not to be closed with them: a process forked from this one replaces them, too, and needs what is below.
            sys.stdout, sys.stderr = (
                open(stream, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
                for stream in (1, 2)
            )
            os.chdir(PROJECT)
            setproctitle(self._title)
            _forget_logging()
            code = self._main()
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:  # whatever happens: nothing of the worker's may go on here
                os._exit(code)


def _fork(child: Callable[[], NoReturn]) -> int:
    """Starts a process that is a copy of this one up to here; returns its id.

    Not multiprocessing's: an executor's workers are daemons, and those must not have children in its books. Where more
    threads run than Python's, from a thread that has computed nothing: one that has would wait in the copy for OpenMP's
    others, which are not copied. Only there: glibc gives a thread's freed memory back, which costs the trainer time.
    """

    def fork() -> int:
        return os.fork() or child()

    if psutil.Process().num_threads() == threading.active_count():
        return fork()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(fork).result()


def _forget_logging() -> None:
    """Leaves logging as a new process has it."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.filters.clear()
            logger.propagate = True
            logger.disabled = False
            logger.setLevel(logging.NOTSET)
