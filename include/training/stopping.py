"""Being asked to stop: by SIGTERM, by Ctrl-C, or by the parent process disappearing."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from include.training.errors import Stopped

logger = logging.getLogger(__name__)


class StopRequest:
    """Turns signals into a request that training honours at its next step.

    While nothing is being trained there is nothing to save, so a signal then raises Stopped on the spot, wherever
    the main thread is (a download, a wait for MLflow, an upload).
    """

    def __init__(self) -> None:
        self.signum = 0
        self._deferring = False

    def listen(self) -> None:
        """Takes over SIGTERM and SIGINT. Call it from the main thread."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._received)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that looks at ``signum`` itself and stops when its work is safe."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _received(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            return  # a second signal must not break the checkpoint that the first one asked for
        self.signum = signum
        logger.warning("%s received: stopping", signal.Signals(signum).name)
        if not self._deferring:
            raise Stopped(signum)


def follow_parent(parent: int, *, every_seconds: float = 1.0) -> None:
    """Sends this process SIGTERM once its parent is no longer `parent`, so that an orphan does not train on.

    Args:
        parent: The process id of the parent, read before anything slow happened.
        every_seconds: How often to look.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        logger.warning("parent process %d is gone", parent)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
