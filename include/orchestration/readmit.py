"""Takes the rows of a run back that were set aside: ``python -m include.orchestration.readmit RUN [--reason "…"]``.

They join the next run; one is started for them unless the pipeline is paused. What was set aside because it would
change many golden labels is set aside again, unless ``--approve`` says that the new labels are right.
"""

import argparse
import getpass
import sys

from include.orchestration import listening, settling
from include.orchestration.warehouse import warehouse
from include.registry import ledger, models
from include.settings import settings


class NothingSetAside(RuntimeError):
    """A run has no rows that could be taken back."""


def readmit(model_name: str, run_id: str, *, actor: str, reason: str = "", approve: bool = False, by: str = "") -> str:
    """Takes a run's batches back, and tells the pipeline of them; returns what happened, in words.

    With ``approve`` their files may change as many golden labels as they want to, and the ledger says who said so.
    ``by`` is what carries the word of the ``actor``. Raises NothingSetAside.
    """
    verb = "approved" if approve else "readmitted"
    found = settling.readmit(run_id, f"{verb} by {actor}{f': {reason}' if reason else ''}", approve=approve)
    if not found:
        waits = " Its challenger waits for a person: make approve, or make reject" if settling.awaiting(run_id) else ""
        raise NothingSetAside(f"nothing of run {run_id} is set aside.{waits}")
    if approve:
        _enter(model_name, run_id, actor, reason, {"batches": found} | ({"by": by} if by else {}))
    listening.announce(f"readmit {run_id}")
    return f"taken back: {', '.join(found)}"


def _enter(model_name: str, run_id: str, actor: str, reason: str, facts: dict[str, object]) -> None:
    champion = models.by_alias(model_name, models.CHAMPION)
    entry = ledger.Entry(
        model_name=model_name,
        verb="approve_corrections",
        version=champion.version if champion else "",
        previous_champion=champion.version if champion else None,
        actor=f"person:{actor}",
        reason=reason or "no reason given",
        dag_run_id=run_id,
        facts=facts,
    )
    ledger.append(warehouse(), entry)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.readmit", description=__doc__)
    parser.add_argument("run", help="id of the run whose rows were set aside")
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--reason", default="", help="why; kept with the batch")
    parser.add_argument("--actor", default=getpass.getuser(), help="who; kept with the batch (%(default)s)")
    parser.add_argument("--approve", action="store_true", help="the golden labels that its files change are right")
    options = parser.parse_args(arguments)
    try:
        by = f"shell:{getpass.getuser()}"
        told = readmit(
            options.model, options.run, actor=options.actor, reason=options.reason, approve=options.approve, by=by
        )
    except NothingSetAside as error:
        print(error, file=sys.stderr)
        return 1
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
