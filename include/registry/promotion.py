"""Promote, reject, roll back: what the ledger's verbs mean. ``aliases`` carries them out, and draws the errors."""

import logging
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import Engine

from include.registry import ledger, models, smoke, telling
from include.registry.aliases import (
    AlreadyReplaced,
    ChampionChanged,
    ChampionLost,
    PromotionRefused,
    VersionUnusable,
    carry_out,
    facts_of,
    require,
)
from include.registry.ledger import Entry
from include.registry.models import CHAMPION, PREVIOUS, ModelVersion
from include.registry.smoke import GivenUp
from include.registry.standing import Standing, reconcile

__all__ = ["AlreadyReplaced", "ChampionChanged", "ChampionLost", "PromotionRefused", "RolledBack", "VersionUnusable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RolledBack:
    """How a rollback ended.

    Attributes:
        champion: the champion there is afterwards.
        entry: what the ledger says of it.
        given_up: what it gives up on the golden rows; None if it was forced, or carried out by an earlier call.
    """

    champion: ModelVersion
    entry: Entry
    given_up: GivenUp | None


def promote(entry: Entry, engine: Engine) -> ModelVersion:
    """Carries out a decision to promote, and returns the champion there is afterwards.

    Repeated, it changes nothing, also if a later decision has moved the champion on. Raises ChampionChanged if the
    champion is no longer ``entry.previous_champion``, VersionUnusable if the version cannot be served.
    """
    if entry.verb != "promote":
        raise ValueError(f"decision {entry.decision_id} is to {entry.verb}, not to promote")
    with ledger.exclusive(engine, entry.model_name):
        now = reconcile(entry.model_name, engine)
        if ledger.find(engine, entry.decision_id):
            logger.info("Decision %s was carried out before: %s", entry.decision_id, entry.reason)
        else:
            require(entry.model_name, entry.version)
            if is_news(entry, now):
                carry_out(engine, entry)
        return _champion(entry.model_name)


def reject(entry: Entry, engine: Engine) -> None:
    """Enters a decision to reject; no alias moves, and the version stays for whoever wants to look at it.

    Raises VersionUnusable if there is no such version, ChampionChanged as ``promote`` does.
    """
    if entry.verb != "reject":
        raise ValueError(f"decision {entry.decision_id} is to {entry.verb}, not to reject")
    with ledger.exclusive(engine, entry.model_name):
        version = models.by_version(entry.model_name, entry.version)
        if version is None:
            raise VersionUnusable(f"{entry.model_name} has no version {entry.version} to reject")
        if not ledger.find(engine, entry.decision_id):
            is_news(entry, reconcile(entry.model_name, engine))
        ledger.append(engine, entry)
        telling.tell(entry)
        champion = models.by_alias(entry.model_name, CHAMPION)
        if champion is None or champion.version != entry.version:  # a champion's tags say how it became one
            models.tag(version, facts_of(entry))


def rollback(
    model_name: str,
    engine: Engine,
    *,
    actor: str,
    reason: str,
    smoke_test: smoke.SmokeTest | None,
    to_version: str | None = None,
    replaces: str | None = None,
    dag_run_id: str | None = None,
    code_hash: str = "",
) -> RolledBack:
    """Makes an earlier version the champion again; ``previous`` then is the one rolled back from.

    Without ``to_version`` the target is ``previous``, also if the champion's version was deleted, but not one that the
    last rollback has left. ``replaces`` is the version that is to go, by default the champion when this is called: if
    another is champion by the time the alias is to move, nothing happens. The target is loaded and answers the smoke
    test's texts before that; with labels, what is given up is counted, and hinders nothing. Without a smoke test the
    rollback is forced: the target is not loaded.

    A ``dag_run_id`` makes it happen once per run, however often the run repeats it; and if a rollback was cut off, the
    next call finishes that one. Raises AlreadyReplaced, SmokeTestFailed if the target does not serve, and
    VersionUnusable if there is none.
    """
    with ledger.exclusive(engine, model_name):
        now = reconcile(model_name, engine)
        if done := _done_before(engine, model_name, now, to_version, replaces, dag_run_id):
            return done
        replaces = replaces or now.version
        _check_replaced(model_name, replaces, now)
        target = _rollback_target(engine, model_name, now, to_version)
    # Takes seconds: outside of the lock.
    given_up = smoke.compare(target, now.champion, smoke_test) if smoke_test else None
    facts: dict[str, Any] = {"forced": True} if given_up is None else given_up.counts
    entry = Entry(
        model_name=model_name,
        verb="rollback",
        version=target.version,
        previous_champion=replaces,
        actor=actor,
        reason=reason,
        dag_run_id=dag_run_id or f"manual-{uuid4().hex}",
        code_hash=code_hash,
        dataset_id=target.tags.get("dataset_id", ""),
        job_id=target.tags.get(models.JOB_ID, ""),
        facts=facts,
    )
    with ledger.exclusive(engine, model_name):
        _check_replaced(model_name, replaces, reconcile(model_name, engine))
        carry_out(engine, entry)
        return RolledBack(require(model_name, target.version), entry, given_up)


def is_news(entry: Entry, now: Standing) -> bool:
    """Whether the decision's version is not the champion; raises ChampionChanged if another one is than it thought.

    A champion that was deleted, and whose files are gone, may have been taken for none.
    """
    if entry.previous_champion != now.version and (now.champion or entry.previous_champion):
        raise ChampionChanged(
            f"{entry.model_name}: the decision to {entry.verb} version {entry.version} was made against champion "
            f"{entry.previous_champion}, but the champion is {now.version} now; evaluate again"
        )
    return now.version != entry.version


def _done_before(
    engine: Engine, model_name: str, now: Standing, to_version: str | None, replaces: str | None, dag_run_id: str | None
) -> RolledBack | None:
    """This rollback, if a call that was cut off has begun it, or this run has made it; None if it is a new one."""
    if now.champion is None:
        return None
    cut_off = now.finished
    if (
        cut_off is not None
        and cut_off.verb == "rollback"
        and to_version in (None, now.version)
        and replaces in (None, cut_off.previous_champion)
    ):
        return RolledBack(now.champion, cut_off, None)
    made = ledger.last_move(engine, model_name, dag_run_id=dag_run_id, verb="rollback") if dag_run_id else None
    return RolledBack(now.champion, made, None) if made else None


def _check_replaced(model_name: str, replaces: str | None, now: Standing) -> None:
    if replaces != now.version:
        raise AlreadyReplaced(
            f"{model_name}: version {replaces} is not the champion any more: the champion is {now.version} now. "
            "Nothing was moved"
        )


def _rollback_target(engine: Engine, model_name: str, now: Standing, to_version: str | None) -> ModelVersion:
    if to_version is not None:
        if to_version == now.version and now.champion:
            raise VersionUnusable(f"{model_name} version {to_version} is the champion already")
        return require(model_name, to_version)
    previous = models.by_alias(model_name, PREVIOUS) or _former(engine, model_name, now)
    if previous is None:
        raise VersionUnusable(f"{model_name} has no previous champion to roll back to; name a version")
    last = ledger.last_move(engine, model_name)
    if last and last.verb == "rollback" and last.previous_champion == previous.version:
        raise VersionUnusable(
            f"{model_name}: the last rollback has left version {previous.version} ({last.decided_at:%F %R} UTC: "
            f"{last.reason}). To have it again, or another one, name it: TO={previous.version}"
        )
    return require(model_name, previous.version)


def _former(engine: Engine, model_name: str, now: Standing) -> ModelVersion | None:
    """The newest former champion that no rollback has left, where the alias ``previous`` is gone."""
    moves = [one for one in ledger.entries(engine, model_name, limit=10_000) if one.verb in ledger.MOVES]
    left = {one.previous_champion for one in moves if one.verb == "rollback"}
    for version in dict.fromkeys(one.version for one in moves):
        found = models.by_version(model_name, version)
        if version != now.version and version not in left and found and found.ready:
            return found
    return None


def _champion(model_name: str) -> ModelVersion:
    champion = models.by_alias(model_name, CHAMPION)
    if champion is None:
        raise VersionUnusable(f"{model_name} has no champion")
    return champion
