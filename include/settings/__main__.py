"""``python -m include.settings``: what is wrong with this environment's settings."""

import sys

from include.settings import faults

if __name__ == "__main__":
    sys.exit("\n".join(faults()) or 0)  # to stderr, with 1, if there are any
