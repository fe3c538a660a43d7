"""Carries moves out: the only code that moves the aliases ``champion``, ``previous`` and ``anchor``.

A move is entered in the ledger first and carried out after it: ``previous``, then ``champion``, then ``anchor``, then
the version's tags, of which ``applied_decision`` comes last. At no moment is there no champion. A move that is entered
but has no such tag was cut off, and whoever comes next finishes it before anything else. One caller at a time per
model, by a lock in the warehouse, which the callers of this module hold.

    PromotionRefused
    ├── ChampionChanged    the decision was made against another champion: evaluate again
    │   └── AlreadyReplaced    what a rollback was to replace is not the champion any more: there is nothing to do
    ├── ApprovalRefused    what a person asked for cannot be done (approvals)
    ├── VersionUnusable    not there, or its files are not complete
    └── ChampionLost       the champion was deleted, with its files
"""

import logging
from datetime import UTC, datetime

from sqlalchemy.engine import Engine

from include.registry import canary, ledger, models, telling
from include.registry.ledger import Entry
from include.registry.models import ANCHOR, CHALLENGER, CHAMPION, DECISION, PREVIOUS, ModelVersion
from include.settings import settings

logger = logging.getLogger(__name__)

APPLIED = "applied_decision"
DONE = {
    "promote": "promoted",
    "reject": "rejected",
    "rollback": "rolled back to",
    "by_hand": "set by hand",
    "restore": "restored",
    "await": "awaiting approval",
    "supersede": "superseded",
}


class PromotionRefused(RuntimeError):
    """No alias was moved."""


class ChampionChanged(PromotionRefused):
    """The champion is not the one that the decision was made against."""


class AlreadyReplaced(ChampionChanged):
    """The version that a rollback was to replace is not the champion any more."""


class VersionUnusable(PromotionRefused):
    """The version is not there, or not ready."""


class ChampionLost(PromotionRefused):
    """The champion's version was deleted, and its files too, or the files alone."""


def carry_out(engine: Engine, entry: Entry) -> None:
    """Enters a move, with the anchor that there is after it, and moves the aliases."""
    facts = {ledger.ANCHOR: _anchor_after(engine, entry)} | entry.facts
    config = settings()
    if entry.verb == "promote" and entry.previous_champion and config.canary:
        facts[canary.FACT] = canary.begin(config.canary, config.canary_minutes, datetime.now(UTC))
    entry = entry.model_copy(update={"facts": facts})
    ledger.append(engine, entry)
    _apply(entry)


def finish_last(engine: Engine, model_name: str) -> Entry | None:
    """Finishes the newest move if it was cut off, and returns it then.

    Only the tag tells, not where the aliases are: they may have been moved by hand since, and that is to last.
    """
    last = ledger.last_move(engine, model_name)
    version = models.by_version(model_name, last.version) if last else None
    if last is None or version is None or version.tags.get(APPLIED) == last.decision_id:
        return None
    logger.warning("Decision %s was cut off; finishing it: %s", last.decision_id, last.reason)
    _apply(last)
    return last


def require(model_name: str, version: str) -> ModelVersion:
    """A version that can be served. Raises VersionUnusable."""
    found = models.by_version(model_name, version)
    if found is None:
        raise VersionUnusable(f"{model_name} has no version {version}")
    if not found.ready:
        raise VersionUnusable(f"{model_name} version {version} is not ready: its files were never copied completely")
    if not models.mend_files(found):
        raise VersionUnusable(
            f"{model_name} version {version} has no files any more at {found.uri}, nor has the job that made it, and "
            "there is no backup; bring them back if the bucket keeps old versions of objects, or take another version"
        )
    return found


def facts_of(entry: Entry) -> dict[str, str]:
    """The ledger's facts as the version's tags."""
    left_out = {"model_name", "verb", "version", "gates", "job_id", "dataset_id", "facts"}
    facts = entry.model_dump(mode="json", exclude=left_out)
    gates = {
        f"gate.{gate['name']}": f"{gate['value']:.4f} of {gate['threshold']:.4f} "
        f"{'passed' if gate['passed'] else 'failed'}"
        for gate in entry.gates
    }
    named = {key: str(value) for key, value in facts.items() if value not in (None, "")}
    return {DECISION: DONE[entry.verb], "decision_id": entry.decision_id, **named, **gates}


def _apply(entry: Entry) -> None:
    """Moves the aliases to where the decision wants them; may be repeated."""
    replaced, anchor = entry.previous_champion, entry.facts.get(ledger.ANCHOR)
    if replaced not in (None, entry.version) and models.by_version(entry.model_name, str(replaced)):
        models.point(entry.model_name, PREVIOUS, str(replaced))
    if version := models.by_version(entry.model_name, entry.version):
        models.tag(version, _canary_tags(entry, version))  # first: servers look at the alias, and then at these
    if entry.verb != "by_hand":  # somebody has set it, and may just have set it again
        models.point(entry.model_name, CHAMPION, entry.version)
    if anchor is not None:  # an older version's entry has none
        models.point(entry.model_name, ANCHOR, anchor if models.by_version(entry.model_name, anchor) else entry.version)
    held = models.aliases(entry.model_name)
    for alias in (CHALLENGER, PREVIOUS):  # previous it is if the champion that it replaced was deleted
        if held.get(alias) == entry.version:
            models.unpoint(entry.model_name, alias)
    telling.tell(entry)  # before the last step: cut off here, whoever finishes it tells of it
    if version := models.by_version(entry.model_name, entry.version):
        models.tag(version, facts_of(entry) | {APPLIED: entry.decision_id})
    logger.info("Champion of %s: version %s. %s", entry.model_name, entry.version, entry.reason)


def _canary_tags(entry: Entry, version: ModelVersion) -> dict[str, str]:
    """Those that say how the version is baked from now on, where there are any or it had some before."""
    tags = canary.tags(entry.facts)
    return {name: tag for name, tag in tags.items() if tag or version.tags.get(name)}


def _anchor_after(engine: Engine, entry: Entry) -> str:
    """The anchor after a move that does not name a new one.

    A promotion leaves it where it is. Who goes back to a version goes back to the anchor that it had, and who puts one
    up that never was champion to the anchor that it was judged beside. Before there were anchors, each champion was its
    own.
    """
    last = ledger.last_move(engine, entry.model_name)
    held = str(last.facts.get(ledger.ANCHOR) or last.version) if last else entry.version
    match entry.verb:
        case "promote":
            return held
        case "restore":
            return entry.version if held == entry.previous_champion else held
        case _:
            moves = ledger.moves_to(engine, entry.model_name, entry.version)
            if not moves and (judged := ledger.judged(engine, entry.model_name, entry.version)):
                moves = ledger.moves_to(engine, entry.model_name, str(judged.previous_champion))
            return next((move.facts[ledger.ANCHOR] for move in moves if move.facts.get(ledger.ANCHOR)), entry.version)
