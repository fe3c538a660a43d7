"""What torch's launcher hands to each process that it starts, in variables of its own.

They are nobody's settings, and are in no other process: so they are not read in ``include.settings``.
"""

import os


def by_launcher() -> bool:
    """Whether this process is one of those that the launcher has started."""
    return "RANK" in os.environ


def is_first() -> bool:
    """Whether this process is the only one of its job, or the first."""
    return os.environ.get("RANK", "0") == "0"


def number() -> int:
    """How many processes the job has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def gpu() -> int:
    """The number of the GPU on this machine that is this process's."""
    return int(os.environ["LOCAL_RANK"])
