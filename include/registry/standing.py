"""Who is champion, where MLflow's aliases and the ledger may disagree: somebody has been at work in MLflow's page.

What is found is told in one sentence with what to do, and mended where that can be:

======================================  ==============================================================================
in MLflow                               what becomes of it
======================================  ==============================================================================
the alias champion was set by hand      it is respected, and entered in the ledger
the alias was taken away, or put on a   it is put back to the ledger's champion
version that is not ready
the champion's version was deleted      its files are registered again, as a new version that is the champion
the champion has no files any more      they are copied again from the job that made it, or from its backup
there are none there either             ChampionLost, with the version to roll back to; if there is none, there is no
                                        champion, but the next model is still built on the last one's dataset
======================================  ==============================================================================
"""

import logging
from dataclasses import dataclass

from sqlalchemy.engine import Engine

from include import lake, objects
from include.registry import ledger, models
from include.registry.aliases import ChampionLost, carry_out, finish_last
from include.registry.ledger import Entry
from include.registry.models import CHAMPION, DECISION, JOB_ID, ModelVersion

logger = logging.getLogger(__name__)

ACTOR = "registry"
BY_HAND = "unknown, by hand in MLflow"
"""Who has set an alias there: MLflow keeps no names."""


@dataclass(frozen=True)
class Standing:
    """Who is champion.

    Attributes:
        champion: None if there is none that can be looked up.
        version: the champion's; of a champion whose version was deleted, that one's.
        finished: a move that was cut off and is finished now.
        told: what was found, a sentence each.
    """

    champion: ModelVersion | None
    version: str | None
    finished: Entry | None = None
    told: tuple[str, ...] = ()


def champion(model_name: str, engine: Engine) -> Standing:
    """Who is champion, after what was found amiss is mended.

    Raises ChampionLost if the champion's files are gone and somebody has to decide which version is to replace it.
    """
    with ledger.exclusive(engine, model_name):
        found = reconcile(model_name, engine)
        last = ledger.last_move(engine, model_name)
        if found.champion is not None:
            return _with_files(found, found.champion, engine)
        return found if last is None else _registered_again(found, last, engine)


def reconcile(model_name: str, engine: Engine) -> Standing:
    """Who is champion, after ledger and aliases agree; a champion that was deleted stays so.

    The caller holds the model's lock.
    """
    finished = finish_last(engine, model_name)
    last = ledger.last_move(engine, model_name)
    pointed = models.pointed(model_name, CHAMPION)
    usable = pointed if pointed and pointed.ready else None
    if usable is not None:
        told = () if last and last.version == usable.version else (_enter_by_hand(engine, usable, last),)
        return Standing(usable, usable.version, finished, told)
    if last is None:
        return Standing(None, None)
    entered = models.by_version(model_name, last.version)
    if entered is None or not entered.ready:
        return Standing(None, last.version, finished)
    models.point(model_name, CHAMPION, last.version)
    wrong = f"was put on version {pointed.version}, whose files are not complete" if pointed else "was taken away"
    return Standing(entered, last.version, finished, (_say(
        f"the alias champion of {model_name} {wrong}, in MLflow and by hand: version {last.version} has it again, as "
        "the ledger says. To have another champion: make rollback TO=<version>"
    ),))  # fmt: skip


def _enter_by_hand(engine: Engine, pointed: ModelVersion, last: Entry | None) -> str:
    before = f"instead of version {last.version}" if last else "and the ledger knew of none"
    reason = f"the alias champion was set to version {pointed.version} by hand, in MLflow, {before}"
    entry = Entry(
        model_name=pointed.name,
        verb="by_hand",
        version=pointed.version,
        previous_champion=last.version if last else None,
        actor=BY_HAND,
        reason=reason,
        dataset_id=pointed.tags.get("dataset_id", ""),
        job_id=pointed.tags.get(JOB_ID, ""),
        dag_run_id=_following(last),
    )
    carry_out(engine, entry)
    undo = f" To undo it: make rollback TO={last.version}" if last else ""
    return _say(f"{pointed.name}: {reason}. It stays so, and is entered in the ledger.{undo}")


def _following(last: Entry | None) -> str:
    """The request id of what was found after a move: the same when it is found again."""
    return f"after-{last.decision_id if last else 'nothing'}"


def _with_files(found: Standing, version: ModelVersion, engine: Engine) -> Standing:
    if models.is_complete(version.uri):
        return found
    if not (source := models.mend_files(version)):
        raise ChampionLost(
            f"{version.name}: the files of version {version.version}, the champion, are gone from {version.uri}, and "
            "so are those of the job that made it, and there is no backup. "
            f"{_way_out(version.name, version.version, engine)}"
        )
    told = _say(
        f"{version.name}: files of version {version.version}, the champion, were gone from {version.uri}; they were "
        f"copied again from {source}"
    )
    return Standing(version, version.version, found.finished, (*found.told, told))


def _registered_again(found: Standing, last: Entry, engine: Engine) -> Standing:
    """Gives the files of a champion whose version was deleted a new version, which is the champion."""
    folders = [
        lake.model(last.model_name, last.version),
        lake.job(last.job_id, "model"),
        lake.backup(last.model_name, last.version, "files"),
    ]
    source = next((folder for folder in folders if models.is_complete(folder)), None)
    if source is None:
        lost = f"version {last.version}, the champion, was deleted in MLflow, and its files are gone too"
        if _former(last.model_name, last.version, engine):
            raise ChampionLost(f"{last.model_name}: {lost}. {_way_out(last.model_name, last.version, engine)}")
        told = _say(
            f"{last.model_name}: {lost}; there is no earlier champion either. The next model is judged as a first one"
        )
        return Standing(None, last.version, found.finished, (*found.told, told))
    result = lake.job(last.job_id, "result.json")
    run_id = str(objects.read_json(result).get("mlflow_run_id", "")) if last.job_id and objects.exists(result) else ""
    tags = {JOB_ID: last.job_id or last.decision_id, "dataset_id": last.dataset_id, DECISION: "restored"}
    version = models.register(last.model_name, source, run_id, tags)
    reason = f"version {last.version}, the champion, was deleted in MLflow; its files are version {version} now"
    entry = Entry(
        model_name=last.model_name,
        verb="restore",
        version=version,
        previous_champion=last.version,
        actor=ACTOR,
        reason=reason,
        dataset_id=last.dataset_id,
        golden_hash=last.golden_hash,
        code_hash=last.code_hash,
        dag_run_id=_following(last),
        job_id=last.job_id,
    )
    carry_out(engine, entry)
    told = _say(f"{last.model_name}: {reason} and the champion. To have another champion: make rollback TO=<version>")
    return Standing(models.by_version(last.model_name, version), version, found.finished, (*found.told, told))


def _way_out(model_name: str, version: str, engine: Engine) -> str:
    former = _former(model_name, version, engine)
    instead = f"make rollback REASON='…' TO={former[0]}" if former else "there is no earlier champion to roll back to"
    return f"Bring them back, if the bucket keeps old versions of objects, or another version: {instead}"


def _former(model_name: str, version: str, engine: Engine) -> list[str]:
    """The champions before, the newest first, that can still be loaded."""
    before = [one for one in ledger.champions(engine, model_name) if one != version]
    found = [models.by_version(model_name, one) for one in before]
    return [one.version for one in found if one is not None and one.ready and models.is_complete(one.uri)]


def _say(sentence: str) -> str:
    logger.warning("%s", sentence)
    return sentence
