"""Rolls a model back by hand: ``python -m include.orchestration.rollback --reason "…" [--to VERSION]``.

The target is loaded and answers all golden rows before the alias ``champion`` moves, and what is given up with the
version that it replaces is told; no threshold hinders it. The ledger says who did it and why.
"""

import argparse
import getpass
import logging
import sys
from dataclasses import asdict
from datetime import datetime

from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import golden
from include.orchestration import awaiting, golden_rows, reconciling
from include.orchestration.warehouse import warehouse
from include.registry import ledger, promotion, smoke
from include.registry.code import code_hash
from include.registry.promotion import RolledBack
from include.registry.smoke import GivenUp
from include.settings import settings

logger = logging.getLogger(__name__)

DAG_ID = "model_rollback"
FORCED = "It was forced: not loaded, and not compared."
SHOWN = 3  # rows that come wrong again, in a sentence


def roll_back(
    model_name: str,
    *,
    actor: str,
    reason: str,
    to_version: str | None = None,
    replaces: str | None = None,
    asked_at: datetime | None = None,
    force: bool = False,
    dag_run_id: str | None = None,
) -> str:
    """Makes an earlier version the champion again; returns what happened, and what is given up, in words.

    If ``replaces``, by default the champion at ``asked_at``, is not the champion any more, nothing happens. The uploads
    of the versions that it leaves are set aside, so that no later run counts them as used. With ``force`` the target is
    not loaded first. A ``dag_run_id`` makes it happen once per run. Raises PromotionRefused or SmokeTestFailed, and the
    champion stays.
    """
    engine = warehouse()
    test, hindrance = (None, FORCED) if force else smoke_test(model_name, engine)
    reconciling.settle_batches_of_last_move(model_name, engine)  # of one that was cut off, before another is made
    if replaces is None and asked_at is not None:
        then = ledger.last_move(engine, model_name, before=asked_at)
        replaces = then.version if then else None
    try:
        done = promotion.rollback(
            model_name,
            engine,
            actor=actor,
            reason=reason,
            smoke_test=test,
            to_version=to_version,
            replaces=replaces,
            dag_run_id=dag_run_id,
            code_hash=code_hash(),
        )
    except promotion.AlreadyReplaced as error:
        return f"nothing to do: {error}"
    reconciling.settle_batches_of_last_move(model_name, engine)
    superseded = _follow(model_name, done, engine)
    told = f"{model_name}: version {done.champion.version} is the champion again. {_told(done, hindrance)}".strip()
    return " ".join([told, *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in superseded)])


def _follow(model_name: str, done: RolledBack, engine: Engine) -> list[str]:
    """Lets the golden rows and what waits follow the champion; a sentence on each challenger that this supersedes."""
    superseded: list[str] = []
    try:
        superseded = awaiting.catch_up(model_name, engine)
        golden_rows.follow_champion(model_name, f"rolled back to version {done.champion.version}")
    except (golden.GoldenSetError, FileNotFoundError) as error:  # the next run makes up for it, once it can be read
        logger.warning("the golden rows and what waits do not follow the champion yet: %s", error)
    return superseded


def smoke_test(model_name: str, engine: Engine) -> tuple[smoke.SmokeTest, str]:
    """The golden rows, or a text if there are none; and why it is not the rows.

    A golden set that is gone or was changed is no reason to keep a bad champion. Raises PromotionRefused if nothing was
    ever promoted.
    """
    try:
        golden_set = golden.read(model_name)
    except golden.GoldenSetError as error:
        return smoke.SmokeTest(["a text"]), f"It answers, but what is given up is not known: {error}."
    if golden_set is not None and len(golden_set.established):
        renamed = golden_set.renamed(settings().label_mapping)
        rows = renamed.established
        return smoke.SmokeTest(list(rows["text"]), list(rows["label"]), renamed.label_mapping), ""
    if ledger.last_move(engine, model_name) is None:
        raise promotion.PromotionRefused(f"{model_name} has no golden set: nothing was ever promoted")
    return smoke.SmokeTest(["a text"]), "It answers, but what is given up is not known: the golden set is gone."


def _told(done: RolledBack, hindrance: str) -> str:
    """What is given up, in words; the rows that come wrong again lie in the bucket, and some are shown."""
    found, before = done.given_up, done.entry.previous_champion
    if hindrance or found is None or not found.rows:
        return hindrance
    sentences = [f"It gets {found.right} of {found.rows} golden rows right ({found.right / found.rows:.1%})"]
    if found.right_before is None:
        return f"{sentences[0]}; version {before} could not be asked."
    sentences[0] += f", version {before} {found.right_before} ({found.right_before / found.rows:.1%})"
    wrong, right = found.wrong_again, found.right_again
    sentences.append(f"Rows that come wrong again: {len(wrong)}; right again: {len(right)}")
    if wrong:
        some = "; ".join(f"'{row.text[:80]}' ({row.label}) as {row.answer}" for row in wrong[:SHOWN])
        sentences.append(f"For example {some}")
    kept = _keep(done, found)
    return ". ".join([*sentences, f"All of them: {kept}"] if wrong or right else sentences)


def _keep(done: RolledBack, found: GivenUp) -> str:
    uri = lake.report(DAG_ID, done.entry.dag_run_id, "given_up.json")
    entry = done.entry.model_dump(mode="json", include={"version", "previous_champion", "reason", "actor"})
    return objects.write_json(uri, entry | asdict(found))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 also if what is to be replaced is not the champion any more."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.rollback", description=__doc__)
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--to", metavar="VERSION", help="version to make champion; by default the previous one")
    parser.add_argument(
        "--replaces", metavar="VERSION", help="only if this is the champion; by default the champion there is now"
    )
    parser.add_argument("--reason", required=True, help="why; kept in the ledger")
    parser.add_argument("--actor", default=getpass.getuser(), help="who; kept in the ledger (%(default)s)")
    parser.add_argument("--force", action="store_true", help="in an emergency: without loading the version")
    options = parser.parse_args(arguments)
    try:
        print(
            roll_back(
                options.model,
                actor=options.actor,
                reason=options.reason,
                to_version=options.to,
                replaces=options.replaces,
                force=options.force,
            )
        )
    except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
        print(f"not rolled back: {error}", file=sys.stderr)
        if isinstance(error, smoke.SmokeTestFailed):
            print("In an emergency --force (make rollback FORCE=1) does not load it first", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
