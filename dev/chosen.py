"""The settings of a stack: checked before it starts, kept in its folder, and in force until a start changes them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

from dev.environment import callers_settings, defaults
from dev.processes import StartError
from dev.state import REPOSITORY, State
from include.settings.detection import is_credential


def choose(state: State, overrides: Mapping[str, str]) -> dict[str, str]:
    """The ``BERT_*`` variables that a start is to have: ``overrides``, the caller's, and those kept of earlier starts.

    An empty one brings the default back. Raises StartError if one is no setting, or has a value that is not allowed.
    """
    kept = state.settings or {}
    given = callers_settings() | {name: value for name, value in overrides.items() if name.startswith("BERT_")}
    chosen = {name: value for name, value in (kept | given).items() if value}
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("BERT_")}
    others.pop("MLFLOW_TRACKING_URI", None)  # a stack has its own
    done = subprocess.run(
        [sys.executable, "-m", "include.settings"],
        env=others | defaults() | chosen,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = "".join(f"\n  {line}" for line in done.stderr.splitlines())
        blamed = " ".join(f"{name}=" for name in chosen if name not in given and name in done.stderr)
        forget = f"\nKept from an earlier start; to forget them: {blamed} make up" if blamed else ""
        raise StartError(f"The settings are not right, and nothing was started:{lines}{forget}")
    return chosen


def not_in_force(state: State) -> dict[str, str]:
    """The caller's ``BERT_*`` variables that a running stack was not started with."""
    running = defaults() | (state.settings or {})
    return {name: value for name, value in callers_settings().items() if running.get(name, "") != value}


def described(state: State, environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each setting of a stack that is not the default: its value, and where that comes from."""
    kept, given = state.settings or {}, callers_settings()
    for name, value in sorted(environment.items()):
        if not name.upper().startswith("BERT_") or (name == "BERT_ENVIRONMENT" and value == "local"):
            continue
        origin = "given now" if given.get(name) == value else "kept" if name in kept else "a local stack's own"
        yield f"{name}={'***' if is_credential(name, value) else value}  ({origin})"
