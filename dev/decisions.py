"""What a person decides about a local stack's versions and uploads; each is a command of ``python -m dev``."""

import argparse
import subprocess
import sys
from collections.abc import Callable

from dev.stack import Stack
from dev.state import REPOSITORY


def rollback(arguments: argparse.Namespace) -> int:
    """Makes the previous champion, or the version named, the champion again."""
    options = [f"--to={arguments.to}"] if arguments.to else []
    options += [f"--replaces={arguments.replaces}"] if arguments.replaces else []
    options += ["--force"] if arguments.force else []
    command = [sys.executable, "-m", "include.orchestration.rollback", f"--reason={arguments.reason}", *options]
    return subprocess.call(command, env=Stack(arguments.state).env, cwd=REPOSITORY)


def restore(arguments: argparse.Namespace) -> int:
    """Brings a version back from its backup, and makes it the champion."""
    command = [sys.executable, "-m", "include.orchestration.restore", f"--reason={arguments.reason}"]
    command += ["--files-only"] if arguments.files_only else []
    return subprocess.call([*command, f"--version={arguments.version}"], env=Stack(arguments.state).env, cwd=REPOSITORY)


def approve(arguments: argparse.Namespace) -> int:
    """Makes a challenger that waits for a person the champion."""
    return _decide("approve", arguments, ["--force"] if arguments.force else [])


def reject(arguments: argparse.Namespace) -> int:
    """Rejects a challenger that waits for a person, and sets its rows aside."""
    return _decide("reject", arguments, [])


def _decide(decision: str, arguments: argparse.Namespace, options: list[str]) -> int:
    command = [sys.executable, "-m", "include.orchestration.decisions", decision]
    options += [f"--run={arguments.run_id}"] if arguments.run_id else []
    options += [f"--version={arguments.version}"] if arguments.version else []
    said = [f"--name={arguments.name}", f"--reason={arguments.reason}"]
    return subprocess.call([*command, *options, *said], env=Stack(arguments.state).env, cwd=REPOSITORY)


def readmit(arguments: argparse.Namespace) -> int:
    """Takes the rows back that a run has set aside; they join the next run."""
    command = [sys.executable, "-m", "include.orchestration.readmit", f"--reason={arguments.reason}"]
    command += ["--approve"] if arguments.approve else []
    command += [f"--actor={arguments.name}"] if arguments.name else []
    return subprocess.call([*command, "--", arguments.run_id], env=Stack(arguments.state).env, cwd=REPOSITORY)


def establish(arguments: argparse.Namespace) -> int:
    """Lets the golden rows judge that came with a run's upload."""
    said = [f"--name={arguments.name}", f"--reason={arguments.reason}"]
    command = [sys.executable, "-m", "include.orchestration.establishing", *said]
    return subprocess.call([*command, "--", arguments.run_id], env=Stack(arguments.state).env, cwd=REPOSITORY)


def alerts(arguments: argparse.Namespace) -> int:
    """Shows the alerts that are unsent, and why; 1 if a channel fails."""
    command = [sys.executable, "-m", "include.orchestration.sending"]
    return subprocess.call(command + ["--now"] * arguments.now, env=Stack(arguments.state).env, cwd=REPOSITORY)


DECISIONS = (rollback, restore, approve, reject, readmit, establish)


def add_words(function: Callable[[argparse.Namespace], int], command: argparse.ArgumentParser) -> None:
    """What a person says who decides something."""
    if function is readmit:
        command.add_argument("run_id", help="the run that set them aside")
        command.add_argument("--approve", action="store_true", help="the golden labels that they change are right")
        command.add_argument("--name", default="", help="who says so; by default the user of this machine")
        command.add_argument("--reason", default="", help="why; kept with the batch")
        return
    command.add_argument("--reason", required=True, help="why; kept in the ledger")
    if function is rollback:
        command.add_argument("--to", help="a version; by default the previous champion")
        command.add_argument("--replaces", help="only if this version is the champion")
        command.add_argument("--force", action="store_true", help="in an emergency: without loading the version")
        return
    if function is restore:
        command.add_argument("--version", required=True, help="of which there is a backup")
        command.add_argument("--files-only", action="store_true", help="the champion stays who it is")
        return
    command.add_argument("--name", required=True, help="who decides; kept in the ledger")
    if function is establish:
        command.add_argument("run_id", help="the run that took the upload in")
        return
    command.add_argument("--run", dest="run_id", help="the run that ended awaiting approval")
    command.add_argument("--version", help="or the version that it has made")
    if function is approve:
        command.add_argument("--force", action="store_true", help="though a gate fails by now")
