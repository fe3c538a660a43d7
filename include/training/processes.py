"""The processes that train one job: one, or one per GPU of a machine, started by torch's own launcher."""
# ruff: noqa: TID253 - imported with the trainer, inside functions

import logging
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from include.training import launched

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(hours=12)  # of all processes for the first one: it tokenises for them
STOP_SECONDS = 600  # for a checkpoint after SIGTERM; a pod's own grace period ends sooner


def count(wanted: int) -> int:
    """How many processes a job gets: as many as wanted, or if that is 0, one per GPU."""
    return wanted or max(1, torch.cuda.device_count())


def launch(processes: int, command: Sequence[str]) -> int:
    """Runs ``python -m`` with a command in several processes that know each other.

    Args:
        processes: How many.
        command: Module and arguments.

    Returns:
        0, or the exit code of the process that failed first, whose reason is logged, or 128 + the signal received.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=STOP_SECONDS,
    )
    logger.info("starting %d processes", processes)
    try:
        elastic_launch(config, sys.executable)("-m", *command)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A text where torch made it up (a process was killed), a dict where the process reported an exception.
        reason = failure.message["message"] if isinstance(failure.message, dict) else failure.message
        logger.error("%s", reason.removeprefix("TrainingError: "))
        # Killed by a signal, a process has a negative exit code; shells add it to 128.
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except Exception as error:
        signum = getattr(error, "sigval", None)  # the launcher's SignalException
        if signum is None:
            raise
        return 128 + int(signal.Signals(signum))
    return 0


def report_failure(error: BaseException) -> None:
    """Tells the launcher why this process of several ends."""
    get_error_handler().record_exception(error)


class Processes:
    """This process among those of its job."""

    def __init__(self) -> None:
        self.main = launched.is_first()
        self.number = launched.number()
        if self.number > 1:
            if torch.cuda.is_available():
                torch.cuda.set_device(launched.gpu())
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            # What is agreed upon is on the CPU, so that no GPU waits for it.
            self._group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)

    def agree(self, value: Value) -> Value:
        """The first process's value; waits for all processes."""
        if self.number == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the first process has behind it before the others enter it."""
        if not self.main:
            self.agree(None)
        yield
        if self.main:
            self.agree(None)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A temporary folder that all processes share; it goes with the first."""
        with TemporaryDirectory(prefix="training-") as own:
            yield Path(self.agree(own))
