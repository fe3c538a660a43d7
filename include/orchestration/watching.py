"""Watches a champion that was just deployed: what it takes to put the one before back, and who does it.

Looked at are, each time: whether it is still the champion; whether the server saw it fail as a canary; whether it loads
from its own files and gets the golden rows right that it got when it was judged; what people say of its answers beside
those of the champion before. All that is known stands in the ledger and in the bucket, so a look may be repeated, and
missed.
"""
# Only imported inside tasks.

import hashlib
import io
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagNotFound, DagRunAlreadyExists
from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets.checks import text_keys
from include.evaluation.answers import FILE, read_answers
from include.monitoring import deciding
from include.monitoring.accuracy import Accuracy
from include.monitoring.labels import ErrorRate, error_rate, live_accuracy
from include.orchestration import reconciling, restore, rollback
from include.registry import backups, canary, ledger, models, smoke
from include.registry.ledger import Entry
from include.registry.models import CHAMPION, ModelVersion
from include.settings import settings

logger = logging.getLogger(__name__)

DAG_ID = "watch_champion"
WATCH_THEMSELVES = ("model_retraining_dag", "ml_pipeline_dag")
"""The DAGs whose runs watch what they have deployed."""

DAYS_BEFORE = 30  # of labels, for the champion before
CORRECTED_BEFORE = timedelta(days=1)  # of answers, at most
LOOKS = 20  # in a window, about
CONFIDENCE = 0.95


def begin(model_name: str, version: str, engine: Engine, *, dag_id: str) -> None:
    """Has a version watched that ``dag_id`` has just promoted, unless its run does that; repeated, it is watched once.

    A promotion stands whether it is watched or not: where the DAG is not deployed, the log says so.
    """
    moves = ledger.moves_to(engine, model_name, version)
    if dag_id in WATCH_THEMSELVES or not moves:
        return
    run_id = f"watch__{model_name}__{version}__{moves[0].decided_at:%Y%m%dT%H%M%S}"
    try:
        trigger_dag(DAG_ID, run_id=run_id, conf={"version": version})
    except DagRunAlreadyExists:
        logger.info("version %s is watched already", version)
    except DagNotFound:
        logger.warning("version %s is not watched: the DAG %s is not here", version, DAG_ID)


def notice(model_name: str, engine: Engine) -> str:
    """Looks whether somebody has set the alias champion in MLflow, which nobody else would notice before the next run.

    It stays so, is entered in the ledger, and has the version watched as a promotion has. Returns what was found.
    Raises ChampionLost if the champion's files are gone and somebody has to decide which version is to replace it.
    """
    mended = reconciling.reconcile(model_name)
    last = ledger.last_move(engine, model_name)
    if last is None:
        return "there is no champion yet: there is nothing to watch"
    # An older one has held; where Airflow's runs are deleted, or its database is new, nothing else would say so.
    if last.verb == "by_hand" and datetime.now(UTC) < last.decided_at + timedelta(minutes=settings().watch_minutes):
        begin(model_name, last.version, engine, dag_id=DAG_ID)
    return " ".join(mended) or f"version {last.version} is the champion, as the ledger says"


def look(
    model_name: str, version: str, engine: Engine, *, actor: str, dag_run_id: str, now: datetime | None = None
) -> str | datetime:
    """Looks at a new champion once; says what became of it, or when to look again.

    What became of it: it was replaced, by this look or by somebody else, or it has held until its time was over. Raises
    what a rollback raises, if it fails and the champion before cannot be put back.
    """
    now = now or datetime.now(UTC)
    champion, moves = models.by_alias(model_name, CHAMPION), ledger.moves_to(engine, model_name, version)
    if champion is None or champion.version != version or not moves:
        is_now = f"version {champion.version}" if champion else "none"
        return f"version {version} is not the champion any more ({is_now} is): there is nothing to watch"
    move = moves[0]
    window = timedelta(minutes=settings().watch_minutes)
    until = move.decided_at + window
    seen, trouble = _seen(champion, move, engine, min(now, until), dag_run_id)
    if trouble:
        return _put_back(model_name, champion, move, trouble, actor, dag_run_id)
    if now < until:
        logger.info("version %s: %s", version, "; ".join(seen))
        return min(now + max(window / LOOKS, timedelta(seconds=10)), until)
    return f"version {version} has held for {window.total_seconds() / 60:g} minutes: {'; '.join(seen)}"


def _seen(champion: ModelVersion, move: Entry, engine: Engine, now: datetime, dag_run_id: str) -> tuple[list[str], str]:
    """What there is to say of a champion, and why it has failed; empty if it has not."""
    baking = canary.of(champion)
    if baking is not None and baking.failed:
        return [], f"failed as canary: {baking.failed}"
    told, trouble = _smoke(champion, move, engine, dag_run_id)
    if trouble:
        return [], trouble
    right = live_accuracy(champion.name, champion.version, move.decided_at, now)
    corrected = error_rate(champion.name, champion.version, move.decided_at, now)
    trouble = _less_right(champion, move, right, engine) or _corrected_more_often(champion, move, corrected)
    return [told, _labels(right), *([f"{_share(corrected)} were corrected"] if corrected.answers else [])], trouble


def _less_right(champion: ModelVersion, move: Entry, right: Accuracy, engine: Engine) -> str:
    """Whether people's labels show a champion to be less often right than the one before; empty if they do not."""
    before, since = move.previous_champion, move.decided_at
    if before is None or not right.texts:
        return ""
    reference = live_accuracy(champion.name, before, _alike_since(champion.name, before, since, engine), since)
    if right.high >= reference.low:
        return ""
    return f"by people's labels {_rate(right)} of its answers are right, and of version {before}'s {_rate(reference)}"


def _alike_since(model_name: str, before: str, until: datetime, engine: Engine) -> datetime:
    """From when on a champion's labels are of texts as they come now: not of before a drift, which it did not know."""
    seen = [one.since for one in deciding.alarms(engine, model_name) if one.version == before]
    drifts = [datetime.combine(day, time.min, UTC) for day in seen if day <= until.astimezone(UTC).date()]
    return max([until - timedelta(days=DAYS_BEFORE), *drifts])


def _corrected_more_often(champion: ModelVersion, move: Entry, corrected: ErrorRate) -> str:
    """Whether a champion's answers are shown to be corrected more often than those of the one before, likewise."""
    before, since = move.previous_champion, move.decided_at
    if before is None or not corrected.corrected:
        return ""
    window = min(timedelta(minutes=settings().watch_minutes), CORRECTED_BEFORE)
    reference = error_rate(champion.name, before, since - window, since)
    if not reference.answers or _interval(corrected)[0] <= _interval(reference)[1]:
        return ""
    return f"{_share(corrected)} were corrected, and of version {before}'s {_share(reference)}"


def _interval(rate: ErrorRate) -> tuple[float, float]:
    """Where a share of corrected answers truly lies: sure at all looks of a watch together."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]  # scipy ships no types

    found = binomtest(rate.corrected, rate.answers).proportion_ci(1 - (1 - CONFIDENCE) / LOOKS, "exact")
    return float(found.low), float(found.high)


def _smoke(champion: ModelVersion, move: Entry, engine: Engine, dag_run_id: str) -> tuple[str, str]:
    """Lets a champion answer the golden rows from its own files; what came of it, and what is wrong with that.

    It is asked once, and again when its files have changed.
    """
    files = hashlib.sha256(repr([(one.uri, one.etag) for one in objects.listing(champion.uri)]).encode()).hexdigest()
    kept = lake.staging(dag_run_id, f"watch-{champion.version}.json")
    if objects.exists(kept) and (found := objects.read_json(kept))["files"] == files:
        return str(found["told"]), ""
    test, hindrance = rollback.smoke_test(champion.name, engine)
    try:
        answers = smoke.check(champion, test)
    except smoke.SmokeTestFailed as error:
        return "", f"it does not answer: {error}"
    told = hindrance or "it answers"
    if test.labels is not None:
        told, failed = _compared(answers, test, move)
        if failed:
            return "", told
    objects.write_json(kept, {"files": files, "told": told})
    return told, ""


def _compared(answers: list[str], test: smoke.SmokeTest, move: Entry) -> tuple[str, bool]:
    """How many golden rows come right, and whether those are too few: far fewer than when it was judged by them.

    Of a champion that was not judged here, BERT_MIN_ACCURACY of them have to.
    """
    config, labels = settings(), list(test.labels or [])
    right = dict(zip(_keys(test.texts), map(str.__eq__, answers, labels), strict=True))
    told = f"it gets {sum(right.values())} of {len(right)} golden rows right"
    then = _judged(move, dict(zip(_keys(test.texts), labels, strict=True)))
    if not then:
        failed = sum(right.values()) < config.min_accuracy * len(right)
        return f"{told}, and {config.min_accuracy:.0%} is the least (BERT_MIN_ACCURACY)" if failed else told, failed
    now, before = sum(right[key] for key in then), sum(then.values())
    failed = before - now > config.max_accuracy_drop * len(then)
    return f"{told}; of the {len(then)} that it was judged by {now}, and then it was {before}", failed


def _judged(move: Entry, labels: dict[str, str]) -> dict[str, bool]:
    """Whether each golden row came right when a champion was judged, by the row's key, if its label is the same."""
    uri = ledger.left_by(move.dag_run_id, FILE)
    if not uri or move.verb != "promote":
        return {}
    rows = read_answers(io.BytesIO(objects.read_bytes(uri)), "challenger").to_dict("records")
    return {row["key"]: row["predicted"] == row["label"] for row in rows if labels.get(row["key"]) == row["label"]}


def _keys(texts: Sequence[str]) -> list[str]:
    """What golden rows are called in kept answers."""
    return [f"{key:016x}" for key in text_keys(list(texts))]


def _put_back(model_name: str, champion: ModelVersion, move: Entry, trouble: str, actor: str, dag_run_id: str) -> str:
    """Makes the champion before the champion again, its files as they are in its backup if it has one.

    One that was deleted in MLflow is registered again from there; without a backup the one before that comes back.
    """
    before = models.by_version(model_name, move.previous_champion) if move.previous_champion else None
    if move.previous_champion and (backup := backups.find(model_name, move.previous_champion)):
        try:
            if before is None:  # somebody has deleted the version in MLflow
                before = restore.registered_again(backups.require(model_name, backup.version))
            else:
                backups.bring_back(backup, before.uri)
        except backups.BackupError as error:  # it may serve all the same: the rollback's own trial says so
            logger.warning("%s", error)
    return rollback.roll_back(
        model_name,
        actor=actor,
        reason=f"version {champion.version} has failed in its first {settings().watch_minutes:g} minutes: {trouble}",
        to_version=before.version if before else None,
        replaces=champion.version,
        dag_run_id=dag_run_id,
    )


def _labels(found: Accuracy) -> str:
    return f"by people's labels {_rate(found)} of its answers are right" if found.texts else "no labels came yet"


def _share(found: ErrorRate) -> str:
    return f"{found.corrected} of {found.answers} answers"


def _rate(found: Accuracy) -> str:
    return f"{found.value:.1%} of {found.texts} ({found.low:.1%} to {found.high:.1%})"
