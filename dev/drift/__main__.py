"""``make simulate-drift``: writes docs/monitoring.md, its picture and .local/drift.json.

The exit status is 1 if a bound is missed.
"""

import argparse
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from dev.bench import data
from dev.drift import page, pool, runs
from dev.pages import keep
from dev.state import REPOSITORY

JSON = REPOSITORY / ".local" / "drift.json"


def main() -> int:
    """Simulates at the defaults."""
    parser = argparse.ArgumentParser(prog="python -m dev.drift", description=__doc__)
    parser.add_argument("--data", type=Path, help="labelled texts (default: made-up messages)")
    parser.add_argument("--test", type=Path, help="more of them")
    parser.add_argument("--days", type=int, default=runs.Size.no_drift_days, help="without a drift, for each traffic")
    parser.add_argument("--drifts", type=int, default=runs.Size.drifts, help="of each kind and traffic")
    options = parser.parse_args()
    console = Console(highlight=False)

    def tell(line: str) -> None:
        console.print(f"  {line}", markup=False, soft_wrap=True)

    # The pool's champion is trained in this process: in a lake of its own, and from a base model that lies here.
    os.environ |= {"BERT_BUCKET": (pool.KEPT / "lake").as_uri(), "BERT_LOCAL_BASE_MODELS": "true"}
    size, begun = runs.Size(options.days, options.drifts), datetime.now(UTC)
    found = runs.everything(pool.load(data.load(options.data, options.test), tell), size, tell)
    found = keep(found | {"size": asdict(size)}, begun, JSON)
    console.print(f"{page.write(found)} and {JSON}, after {found['minutes']} minutes", markup=False, soft_wrap=True)
    missed = False
    for bound in runs.bounds(found):
        missed |= not bound.holds
        tell(f"{'holds' if bound.holds else 'missed'}: {bound.aim}: {bound.found}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
