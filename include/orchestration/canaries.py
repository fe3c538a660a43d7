"""Watches a new champion that has only a share of the requests yet: it moves on when its time is over, or back."""
# Only imported inside tasks.

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagRunAlreadyExists
from sqlalchemy.engine import Engine

from include.orchestration import rollback
from include.registry import canary, ledger, models
from include.serving import prediction_log
from include.settings import settings

logger = logging.getLogger(__name__)

DAG_ID = "watch_canary"
LOOKS, LEAST_SECONDS, MOST_SECONDS = 40, 5.0, 60.0


def begin(model_name: str, version: str) -> None:
    """Has a version watched that was just promoted, if it is a canary; repeated, it is watched once."""
    if not settings().canary:
        return
    found = models.by_version(model_name, version)
    baking = canary.of(found) if found else None
    if baking is None:
        return
    run_id = f"canary__{model_name}__{version}__{baking.until:%Y%m%dT%H%M%S}"
    with suppress(DagRunAlreadyExists):
        trigger_dag(DAG_ID, run_id=run_id, conf={"version": version})


def watch(model_name: str, version: str, engine: Engine, *, dag_run_id: str) -> str | None:
    """Looks at a canary once: what became of it, in words, if it has failed and was rolled back, or its time is over.

    None while it bakes. May be repeated. Raises what a rollback raises if that cannot be done; the servers do not ask
    the version any more.
    """
    champion = models.by_alias(model_name, models.CHAMPION)
    if champion is None or champion.version != version:
        now = champion.version if champion else "none"
        return f"version {version} is not the champion any more ({now} is): there is nothing to watch"
    baking = canary.of(champion)
    if baking is None:
        return f"version {version} is no canary"
    if baking.failed:
        reason = f"failed as canary: {baking.failed}"
        return rollback.roll_back(
            model_name, actor=f"dag:{DAG_ID}", reason=reason, replaces=version, dag_run_id=dag_run_id
        )
    if datetime.now(UTC) >= baking.until:
        return _moves_on(model_name, champion, baking, engine, dag_run_id)
    return None


def pause() -> timedelta:
    """How long to wait between two looks: each is a task's start, so a longer canary is looked at less often."""
    return timedelta(seconds=min(max(60 * settings().canary_minutes / LOOKS, LEAST_SECONDS), MOST_SECONDS))


def _moves_on(
    model_name: str, champion: models.ModelVersion, baking: canary.Canary, engine: Engine, dag_run_id: str
) -> str:
    seen = evidence(model_name, champion.version, baking.until)
    told = (
        f"version {champion.version} has held as canary and answers all requests now. It answered {seen['answers']} "
        f"texts; of {seen['compared']} that the version before was asked too, {seen['different']} got another label"
    )
    entry = ledger.Entry(
        model_name=model_name,
        verb="bake",
        version=champion.version,
        previous_champion=champion.version,
        actor=f"dag:{DAG_ID}",
        reason=told,
        dag_run_id=dag_run_id,
        job_id=champion.tags.get(models.JOB_ID, ""),
        facts={canary.FACT: {"percent": baking.percent, "until": baking.until.isoformat(), **seen}},
    )
    ledger.append(engine, entry)
    return told


def evidence(model_name: str, version: str, until: datetime) -> dict[str, Any]:
    """What the log has of a canary: texts that it answered, and of those that both were asked, how many differ."""
    days = {f"{until - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 1)}
    answered: dict[str, str] = {}
    others: dict[str, str] = {}
    for rows in prediction_log.read(model_name, sorted(days)):
        for row in rows.select(["id", "version", "role", "label"]).to_pylist():
            if row["role"] == "canary" and row["version"] == version:
                answered[row["id"]] = row["label"]
            elif row["role"] == "shadow":
                others[row["id"]] = row["label"]
    both = answered.keys() & others.keys()
    different = sum(answered[one] != others[one] for one in both)
    return {"answers": len(answered), "compared": len(both), "different": different}
