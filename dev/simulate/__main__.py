"""``make simulate-promotion``: writes docs/promotion.md, its picture and .local/promotion.json.

The exit status is 1 if a bound is missed.
"""

import sys
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console

from dev.pages import keep
from dev.simulate import page, runs
from dev.state import REPOSITORY
from include.evaluation.gates import Thresholds
from include.settings import Settings

JSON = REPOSITORY / ".local" / "promotion.json"


def main() -> int:
    """Simulates with the settings' defaults, whatever the environment says."""
    console = Console(highlight=False)
    defaults = {name: Settings.model_fields[name].default for name in Thresholds.model_fields}
    thresholds, size = Thresholds(**defaults), runs.Size()
    begun = datetime.now(UTC)
    found = runs.everything(thresholds, size, lambda line: console.print(f"  {line}", markup=False))
    found = keep(found | {"thresholds": thresholds.model_dump(), "size": asdict(size)}, begun, JSON)
    console.print(f"{page.write(found)} and {JSON}, after {found['minutes']} minutes", markup=False, soft_wrap=True)
    missed = [bound for bound in runs.bounds(found) if not bound.holds]
    for bound in runs.bounds(found):
        word = "missed" if bound in missed else "holds"
        console.print(f"  {word}: {bound.told} {bound.limit:.0%}, found {bound.worst:.1%}", markup=False)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
