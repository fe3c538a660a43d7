"""Puts every Python program of the month's stack on the month's clock: this folder stands first on their path."""

import os
from pathlib import Path

if "MONTH_CLOCK" in os.environ:
    from dev.month.clock import follow

    follow(Path(os.environ["MONTH_CLOCK"]))
