"""Rolls a model back by hand: ``python -m include.orchestration.rollback --reason "…" [--to VERSION]``.

The target is loaded and scored on golden rows before the alias ``champion`` moves; the ledger says who did it and why.
"""

import argparse
import getpass
import sys

from airflow.providers.postgres.hooks.postgres import PostgresHook

from include.datasets import golden
from include.orchestration import golden_rows, settling
from include.orchestration.defaults import WAREHOUSE
from include.registry import ledger, lineage, promotion, smoke
from include.registry.code import code_hash
from include.settings import settings

SMOKE_ROWS = 64


def roll_back(
    model_name: str, *, actor: str, reason: str, to_version: str | None = None, dag_run_id: str | None = None
) -> str:
    """Makes an earlier version the champion again; returns a sentence that says which.

    The uploads of the versions that it leaves are set aside, so that no later run counts them as used.
    A ``dag_run_id`` makes it happen once per run. Raises PromotionRefused or SmokeTestFailed, and the champion stays.
    """
    frozen = golden.read(model_name)
    if frozen is None or frozen.established.empty:
        raise promotion.PromotionRefused(f"{model_name} has no golden set: nothing was ever promoted")
    rows = frozen.established.sample(min(SMOKE_ROWS, len(frozen.established)), random_state=0)
    engine = PostgresHook(WAREHOUSE).get_sqlalchemy_engine()
    champion = promotion.rollback(
        model_name,
        engine,
        actor=actor,
        reason=reason,
        smoke_test=smoke.SmokeTest(list(rows["text"]), list(rows["label"]), settings().min_accuracy),
        to_version=to_version,
        dag_run_id=dag_run_id,
        code_hash=code_hash(),
    )
    golden_rows.follow_champion(model_name, f"rolled back to version {champion.version}")
    entry = ledger.last_move(engine, model_name)
    if entry is not None and entry.verb == "rollback":
        left, regained = lineage.left_and_regained(engine, entry)
        why = f"rollback from version {entry.previous_champion} to {entry.version}: {entry.reason}"
        settling.set_aside([one.dag_run_id for one in left], why)
        settling.restore([one.dag_run_id for one in regained], why)
    return f"{champion.name}: version {champion.version} is the champion again"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.rollback", description=__doc__)
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--to", metavar="VERSION", help="version to make champion; by default the previous one")
    parser.add_argument("--reason", required=True, help="why; kept in the ledger")
    parser.add_argument("--actor", default=getpass.getuser(), help="who; kept in the ledger (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(roll_back(options.model, actor=options.actor, reason=options.reason, to_version=options.to))
    except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
        print(f"not rolled back: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
