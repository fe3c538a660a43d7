"""Takes the rows of a run back that were set aside: ``python -m include.orchestration.readmit RUN [--reason "…"]``.

They join the next run; one is started for them unless the pipeline is paused. What was set aside because it would
change many golden labels is set aside again, unless ``--approve`` says that the new labels are right.
"""

import argparse
import getpass
import sys

from include.orchestration import listening, settling


def readmit(run_id: str, *, actor: str, reason: str = "", approve: bool = False) -> list[str]:
    """Takes a run's batches back, and tells the pipeline of them; returns their ids."""
    verb = "approved" if approve else "readmitted"
    found = settling.readmit(run_id, f"{verb} by {actor}{f': {reason}' if reason else ''}", approve=approve)
    if found:
        listening.announce(f"readmit {run_id}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.readmit", description=__doc__)
    parser.add_argument("run", help="id of the run whose rows were set aside")
    parser.add_argument("--reason", default="", help="why; kept with the batch")
    parser.add_argument("--actor", default=getpass.getuser(), help="who; kept with the batch (%(default)s)")
    parser.add_argument("--approve", action="store_true", help="the golden labels that its files change are right")
    options = parser.parse_args(arguments)
    found = readmit(options.run, actor=options.actor, reason=options.reason, approve=options.approve)
    if not found:
        print(f"nothing of run {options.run} is set aside", file=sys.stderr)
        return 1
    print(f"taken back: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
