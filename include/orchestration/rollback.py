"""Rolls a model back by hand: ``python -m include.orchestration.rollback --reason "…" [--to VERSION]``.

The target is loaded and scored on golden rows before the alias ``champion`` moves; the ledger says who did it and why.
"""

import argparse
import getpass
import sys

from airflow.providers.postgres.hooks.postgres import PostgresHook

from include.datasets import golden
from include.orchestration.defaults import WAREHOUSE
from include.registry import promotion, smoke
from include.registry.code import code_hash
from include.settings import settings

SMOKE_ROWS = 64


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    config = settings()
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.rollback", description=__doc__)
    parser.add_argument("--model", default=config.model_name, help="registered model (%(default)s)")
    parser.add_argument("--to", metavar="VERSION", help="version to make champion; by default the previous one")
    parser.add_argument("--reason", required=True, help="why; kept in the ledger")
    parser.add_argument("--actor", default=getpass.getuser(), help="who; kept in the ledger (%(default)s)")
    options = parser.parse_args(arguments)
    frozen = golden.read(options.model)
    if frozen is None:
        parser.error(f"{options.model} has no golden set: nothing was ever promoted")
    rows = frozen.rows.sample(min(SMOKE_ROWS, len(frozen.rows)), random_state=0)
    test = smoke.SmokeTest(list(rows["text"]), list(rows["label"]), config.min_accuracy)
    try:
        champion = promotion.rollback(
            options.model,
            PostgresHook(WAREHOUSE).get_sqlalchemy_engine(),
            actor=options.actor,
            reason=options.reason,
            smoke_test=test,
            to_version=options.to,
            code_hash=code_hash(),
        )
    except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
        print(f"not rolled back: {error}", file=sys.stderr)
        return 1
    print(f"{champion.name}: version {champion.version} is the champion again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
