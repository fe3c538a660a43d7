"""The trainer's command for tests, forked from a process that has its imports behind it: they take 12 s of CPU."""

import os
import runpy
import signal
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired

REPOSITORY = Path(__file__).parents[1]

_context = get_context("forkserver")
_context.set_forkserver_preload(["include.training.train", "transformers.models.bert.modeling_bert", "mlflow"])


class Program:
    """``python -m MODULE ARGUMENTS`` with its output in a pipe; what is needed here of ``subprocess.Popen``."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        reading, writing = _context.Pipe(duplex=False)
        environment = dict(os.environ if env is None else env)
        self._process = _context.Process(target=_run, args=(module, arguments, environment, writing))
        self._process.start()
        writing.close()
        self.stdout = os.fdopen(os.dup(reading.fileno()), encoding="utf-8")
        reading.close()
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        """The exit code, negative if a signal ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(str(self.pid), timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[int, str]:
        """The exit code, and what is left of its output."""
        output = self.stdout.read()
        return self.wait(timeout), output

    def send_signal(self, signum: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)


def _run(module: str, arguments: tuple[str, ...], environment: dict[str, str], writing: Connection) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    for stream in (1, 2):
        os.dup2(writing.fileno(), stream)
    writing.close()
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, encoding="utf-8") for stream in (1, 2))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
