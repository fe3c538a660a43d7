"""Makes the next one on another core while one is worked on."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

One = TypeVar("One")

SWITCH_SECONDS = 0.0002


def ahead(ones: Iterator[One]) -> Iterator[One]:
    """The same ones, each made in a thread while the one before is worked on. None must be None.

    Python lets a thread wait 5 ms for its turn, which is as long as most steps on a block of rows take.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with ThreadPoolExecutor(1) as maker:
            following = maker.submit(next, ones, None)
            while (one := following.result()) is not None:
                following = maker.submit(next, ones, None)
                yield one
    finally:
        sys.setswitchinterval(interval)
