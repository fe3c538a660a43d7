"""The month's clock: all programs of the stack, and the month's own runs, follow one file that says what time it is.

The file has the seconds from the real time to the month's. Time goes on between two moves of the clock, in each program
as it really does; PostgreSQL alone, which nothing asks for the time, keeps the real one.
"""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import time_machine

VARIABLE = "MONTH_CLOCK"
"""Names the file, to programs that are to follow it."""

SITE = Path(__file__).with_name("clocked")
"""First on a program's path, it makes the program follow the clock."""

LOOKS_EVERY_SECONDS = 0.05


class Clock:
    """What the month's time is told by."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def set(self, at: datetime) -> None:
        """Moves the clock, and returns when all who follow it have seen that."""
        coming = self.file.with_suffix(".coming")
        coming.write_text(str(at.timestamp() - real()))
        coming.rename(self.file)
        time.sleep(4 * LOOKS_EVERY_SECONDS)

    def now(self) -> datetime:
        """The month's time."""
        return datetime.fromtimestamp(real() + _offset(self.file), UTC)


def real() -> float:
    """Seconds since 1970, whatever clock this process follows."""
    hatch = time_machine.escape_hatch
    return float(hatch.time.time() if hatch.is_travelling() else time.time())


def follow(file: Path) -> None:
    """From now on this process has the clock's time, and its children have it, too."""
    traveller = time_machine.travel(real() + _offset(file), tick=True).start()

    def watch() -> None:
        seen = _offset(file)
        while True:
            time.sleep(LOOKS_EVERY_SECONDS)
            offset = _offset(file)
            if offset != seen:
                seen = offset
                traveller.move_to(real() + offset)

    def begin() -> None:
        threading.Thread(target=watch, name="clock", daemon=True).start()

    begin()
    os.register_at_fork(after_in_child=begin)  # a fork has no threads


def _offset(file: Path) -> float:
    return float(file.read_text())
