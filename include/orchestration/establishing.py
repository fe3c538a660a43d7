"""Lets golden rows judge that came with an upload: ``python -m include.orchestration.establishing RUN --name … …``.

They do so by themselves once a model that was trained on the upload is promoted. Where a person has looked at them,
they judge before, and go on whatever becomes of that model: a rollback does not take that back. The ledger says who
said so.
"""

import argparse
import getpass
import sys
from typing import Any

from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import golden
from include.orchestration import settling
from include.orchestration.warehouse import warehouse
from include.registry import ledger, models
from include.registry.ledger import Entry
from include.settings import settings


class NothingToEstablish(RuntimeError):
    """No golden rows came with what was named, or the run is not there."""


def establish(model_name: str, run_id: str, *, name: str, reason: str, by: str = "") -> str:
    """Establishes the golden rows that came with a run's upload; returns what happened, in words.

    ``by`` is what carries the word of the person called ``name``. Repeated, it changes nothing. Raises
    NothingToEstablish.
    """
    engine = warehouse()
    before = _said_before(engine, model_name, run_id)
    if before is not None:
        _carry_out(before)
        return (
            f"nothing to do: they were established on {before.decided_at:%F %R} UTC by "
            f"{before.actor.removeprefix('person:')}: {before.reason}"
        )
    origin, rows = _origin(run_id), golden.read(model_name)
    mine = None if rows is None else rows.rows[golden.came_with(rows.rows, {origin})]
    if mine is None or not len(mine):
        raise NothingToEstablish(
            f"no golden rows came with the run {run_id}, or they came again with a later one: name that one"
        )
    if mine["established"].all():
        return f"nothing to do: the {len(mine)} golden rows of the run {run_id} judge already, since it was promoted"
    champion = models.by_alias(model_name, models.CHAMPION)
    labels = {str(label): int(count) for label, count in mine["label"].value_counts().sort_index().items()}
    facts: dict[str, Any] = {"origin": origin, "rows": len(mine), "labels": labels}
    entry = Entry(
        model_name=model_name,
        verb="establish",
        version=champion.version if champion else "",
        previous_champion=champion.version if champion else None,
        actor=f"person:{name}",
        reason=reason,
        dag_run_id=run_id,
        facts=facts | ({"by": by} if by else {}),
    )
    ledger.append(engine, entry)  # first: cut off here, whoever repeats it finishes it
    _carry_out(entry)
    shown = ", ".join(f"{count} {label}" for label, count in labels.items())
    return f"{len(mine)} golden rows of the run {run_id} judge from now on ({shown}): established by {name}, {reason}"


def _carry_out(entry: Entry) -> None:
    because = f"established by {entry.actor.removeprefix('person:')}: {entry.reason}"
    golden.change(entry.model_name, lambda last: last.vouched(entry.facts["origin"]), because)


def _said_before(engine: Engine, model_name: str, run_id: str) -> Entry | None:
    entry = ledger.of_run(engine, run_id, "establish")
    return entry if entry is not None and entry.model_name == model_name else None


def _origin(run_id: str) -> str:
    """The dataset by which the golden rows that came with a run are known."""
    staged = lake.staging(run_id, "dataset.json")
    if objects.exists(staged):
        facts = objects.read_json(staged)
        return str(facts.get("golden_origin", facts["dataset_id"]))
    report = settling.report_of(run_id)  # lasts longer
    dataset_id = report.get("dataset_id")
    if not dataset_id:
        raise NothingToEstablish(f"the run {run_id} has made no dataset, or there is no such run: check its id")
    return golden.after(dataset_id) if dataset_id == report["parent_dataset_id"] else str(dataset_id)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.establishing", description=__doc__)
    parser.add_argument("run", help="id of the run that took the upload in")
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--name", required=True, help="who says so; kept in the ledger")
    parser.add_argument("--reason", required=True, help="why; kept in the ledger")
    options = parser.parse_args(arguments)
    try:
        by = f"shell:{getpass.getuser()}"
        print(establish(options.model, options.run, name=options.name, reason=options.reason, by=by))
    except NothingToEstablish as error:
        print(f"not established: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
