"""Promote, reject, roll back: the only code that moves the aliases ``champion`` and ``previous``.

A decision is entered in the ledger first and carried out after it: ``previous``, then ``champion``, then the version's
tags, of which ``applied_decision`` comes last. At no moment is there no champion. A decision that is entered but has no
such tag was cut off, and whoever comes next finishes it before anything else. One caller at a time per model, by a lock
in the warehouse.

    PromotionRefused
    ├── ChampionChanged    the decision was made against another champion: evaluate again
    └── VersionUnusable    not there, or its files are not complete
"""

import logging
from uuid import uuid4

from sqlalchemy.engine import Engine

from include.registry import ledger, models, smoke
from include.registry.ledger import Entry
from include.registry.models import CHALLENGER, CHAMPION, DECISION, PREVIOUS, ModelVersion

logger = logging.getLogger(__name__)

APPLIED = "applied_decision"


class PromotionRefused(RuntimeError):
    """No alias was moved."""


class ChampionChanged(PromotionRefused):
    """The champion is not the one that the decision was made against."""


class VersionUnusable(PromotionRefused):
    """The version is not there, or not ready."""


def promote(entry: Entry, engine: Engine) -> ModelVersion:
    """Carries out a decision to promote, and returns the champion there is afterwards.

    Repeated, it changes nothing, also if a later decision has moved the champion on. Raises ChampionChanged if the
    champion is no longer ``entry.previous_champion``, VersionUnusable if the version cannot be served.
    """
    if entry.verb != "promote":
        raise ValueError(f"decision {entry.decision_id} is to {entry.verb}, not to promote")
    with ledger.exclusive(engine, entry.model_name):
        _finish_last(engine, entry.model_name)
        if ledger.find(engine, entry.decision_id):
            logger.info("Decision %s was carried out before: %s", entry.decision_id, entry.reason)
        else:
            _require(entry.model_name, entry.version)
            if _is_news(entry):
                _carry_out(engine, entry)
        return _champion(entry.model_name)


def reject(entry: Entry, engine: Engine) -> None:
    """Enters a decision to reject; no alias moves, and the version stays for whoever wants to look at it.

    Raises VersionUnusable if there is no such version.
    """
    if entry.verb != "reject":
        raise ValueError(f"decision {entry.decision_id} is to {entry.verb}, not to reject")
    with ledger.exclusive(engine, entry.model_name):
        version = models.by_version(entry.model_name, entry.version)
        if version is None:
            raise VersionUnusable(f"{entry.model_name} has no version {entry.version} to reject")
        if not ledger.find(engine, entry.decision_id):
            _is_news(entry)
        ledger.append(engine, entry)
        champion = models.by_alias(entry.model_name, CHAMPION)
        if champion is None or champion.version != entry.version:  # a champion's tags say how it became one
            models.tag(version, _facts(entry))


def rollback(
    model_name: str,
    engine: Engine,
    *,
    actor: str,
    reason: str,
    smoke_test: smoke.SmokeTest,
    to_version: str | None = None,
    dag_run_id: str | None = None,
    code_hash: str = "",
) -> ModelVersion:
    """Makes an earlier version the champion again, and returns it; ``previous`` then is the one rolled back from.

    Without ``to_version`` the target is ``previous``, also if the champion's version was deleted. The target is loaded
    and scored before any alias moves. A ``dag_run_id`` makes it happen once per run, however often the run repeats it;
    and if a rollback was cut off, the next call finishes that one. Raises SmokeTestFailed if the target does not serve,
    VersionUnusable if there is none, and ChampionChanged if the champion changed during the smoke test.
    """
    with ledger.exclusive(engine, model_name):
        finished = _finish_last(engine, model_name)
        champion = models.by_alias(model_name, CHAMPION)
        if champion and finished and finished.verb == "rollback" and to_version in (None, champion.version):
            return champion
        if champion and dag_run_id and ledger.last_move(engine, model_name, dag_run_id=dag_run_id, verb="rollback"):
            return champion
        target = _rollback_target(model_name, champion, to_version)
    smoke.check(target, smoke_test)  # takes seconds: outside of the lock
    entry = Entry(
        model_name=model_name,
        verb="rollback",
        version=target.version,
        previous_champion=champion.version if champion else None,
        actor=actor,
        reason=reason,
        dag_run_id=dag_run_id or f"manual-{uuid4().hex}",
        code_hash=code_hash,
        dataset_id=target.tags.get("dataset_id", ""),
        job_id=target.tags.get(models.JOB_ID, ""),
    )
    with ledger.exclusive(engine, model_name):
        if _is_news(entry):
            _carry_out(engine, entry)
    return target


def _is_news(entry: Entry) -> bool:
    """Whether the decision's version is not the champion; raises ChampionChanged if another one is than it thought."""
    champion = models.by_alias(entry.model_name, CHAMPION)
    version = champion.version if champion else None
    if version != entry.previous_champion:
        raise ChampionChanged(
            f"{entry.model_name}: the decision to {entry.verb} version {entry.version} was made against champion "
            f"{entry.previous_champion}, but the champion is {version} now; evaluate again"
        )
    return version != entry.version


def _carry_out(engine: Engine, entry: Entry) -> None:
    ledger.append(engine, entry)
    _apply(entry)


def _finish_last(engine: Engine, model_name: str) -> Entry | None:
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


def _apply(entry: Entry) -> None:
    """Moves the aliases to where the decision wants them; may be repeated."""
    if entry.previous_champion not in (None, entry.version):
        models.point(entry.model_name, PREVIOUS, str(entry.previous_champion))
    models.point(entry.model_name, CHAMPION, entry.version)
    previous = models.by_alias(entry.model_name, PREVIOUS)
    if previous and previous.version == entry.version:  # the champion that it replaced was deleted
        models.unpoint(entry.model_name, PREVIOUS)
    challenger = models.by_alias(entry.model_name, CHALLENGER)
    if challenger and challenger.version == entry.version:
        models.unpoint(entry.model_name, CHALLENGER)
    version = _require(entry.model_name, entry.version)
    models.tag(version, _facts(entry) | {APPLIED: entry.decision_id})
    logger.info("Champion of %s: version %s. %s", entry.model_name, entry.version, entry.reason)


def _facts(entry: Entry) -> dict[str, str]:
    """The ledger's facts as the version's tags."""
    done = {"promote": "promoted", "reject": "rejected", "rollback": "rolled back to"}
    facts = entry.model_dump(mode="json", exclude={"model_name", "verb", "version", "gates", "job_id", "dataset_id"})
    gates = {
        f"gate.{gate['name']}": f"{gate['value']:.4f} of {gate['threshold']:.4f} "
        f"{'passed' if gate['passed'] else 'failed'}"
        for gate in entry.gates
    }
    named = {key: str(value) for key, value in facts.items() if value not in (None, "")}
    return {DECISION: done[entry.verb], "decision_id": entry.decision_id, **named, **gates}


def _rollback_target(model_name: str, champion: ModelVersion | None, to_version: str | None) -> ModelVersion:
    if to_version is None:
        previous = models.by_alias(model_name, PREVIOUS)
        if previous is None:
            raise VersionUnusable(f"{model_name} has no previous champion to roll back to; name a version")
        return previous
    if champion and to_version == champion.version:
        raise VersionUnusable(f"{model_name} version {to_version} is the champion already")
    return _require(model_name, to_version)


def _require(model_name: str, version: str) -> ModelVersion:
    found = models.by_version(model_name, version)
    if found is None:
        raise VersionUnusable(f"{model_name} has no version {version}")
    if not found.ready:
        raise VersionUnusable(f"{model_name} version {version} is not ready: its files were never copied completely")
    return found


def _champion(model_name: str) -> ModelVersion:
    champion = models.by_alias(model_name, CHAMPION)
    if champion is None:
        raise VersionUnusable(f"{model_name} has no champion")
    return champion
