"""What ``model_retraining_dag`` does apart from the road: one run per decision, the backup, and the lost comparison."""
# Only imported inside tasks.

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.models import DagRun

from include import lake, objects
from include.evaluation.evaluate import Evaluation
from include.markdown import plain
from include.orchestration import batches, intake_steps, notes, promotion_steps, rollback
from include.orchestration.intake_steps import pinned_plan
from include.orchestration.warehouse import warehouse
from include.registry import backups, models, promotion, smoke, standing
from include.registry.backups import Backup, BackupError
from include.registry.models import CHAMPION
from include.serving import feedback
from include.settings import settings
from include.uploads import claims

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

DEPLOY, ROLL_BACK = "deploy_new_model", "rollback_model"


def build_dataset(dag_run: DagRun, params: dict[str, Any]) -> dict[str, Any]:
    """Builds what is trained on: the champion's rows, and all that came since and no run uses. Returns the snapshot.

    Skips the rest of the run if another run carries out the same decision, and where an upload's run would end: rows
    that wait for more, or for a person.
    """
    model_name = settings().model_name
    claim(model_name, dag_run, params.get("decision_id") or "")
    gather(model_name, dag_run)
    validated = intake_steps.validate(dag_run, {**params, "dataset_uri": None})
    rows = accepted(validated["accepted_uri"])
    return intake_steps.preprocess(rows, dag_run.run_id, validated["accepted_hash"])


def claim(model_name: str, dag_run: DagRun, decision_id: str) -> None:
    """Makes a decision to retrain this run's, for good. Skips the run if it is another's."""
    if not decision_id:
        return
    uri, mine = lake.retraining(model_name, decision_id), {"dag_id": dag_run.dag_id, "run_id": dag_run.run_id}
    if objects.create_json(uri, mine):
        return
    other = objects.read_json(uri)
    if other == mine:
        return
    told = (
        f"decision {decision_id} is carried out by the run {other['run_id']} of {other['dag_id']}: no second training. "
        "If that one has failed, clear it; to train in any case, trigger this DAG without decision_id"
    )
    notes.set_note(dag_run.dag_id, dag_run.run_id, f"**skipped** — {plain(told)}")
    raise AirflowSkipException(told)


def gather(model_name: str, dag_run: DagRun) -> None:
    """Claims what lies in ``incoming/``, and with it the corrections that ``collect_feedback`` has not sent there yet.

    Repeated, it claims nothing twice. What it claims and does not come to use, the listener tells the pipeline of.
    """
    feedback.send_back(model_name, lake.slug(dag_run.run_id), datetime.now(UTC).date())
    claimed = claims.claim_uploads(claims.batch_id_of(f"{dag_run.logical_date:%Y%m%dT%H%M%S}", dag_run.run_id))
    batches.record([batch.batch_id for batch in claimed])


def accepted(uri: str) -> "pd.DataFrame":
    """The rows that a run has accepted."""
    import pandas as pd

    with objects.filesystem(uri).open(uri, "rb") as content:
        return pd.read_parquet(content)


def back_up(dag_run: DagRun) -> dict[str, Any]:
    """Backs the champion up, and deletes the oldest backups; returns its version and where the backup lies.

    Before the first champion there is nothing to back up. Raises ChampionLost, without a second try, if its files are
    gone, and BackupError if the copy is not what was copied.
    """
    model_name = pinned_plan(dag_run.run_id).model_name
    try:
        champion = standing.champion(model_name, warehouse()).champion
    except promotion.ChampionLost as error:
        raise AirflowFailException(str(error)) from error
    if champion is None:
        logger.info("%s has no champion yet: there is nothing to back up", model_name)
        return {"version": None, "uri": None, "files": 0}
    backup = keep(champion)
    for version in backups.thin_out(model_name, settings().backups_kept, champion.version):
        logger.info("the backup of version %s is deleted (BERT_BACKUPS_KEPT)", version)
    return {"version": champion.version, "uri": lake.backup(model_name, champion.version), "files": len(backup.files)}


def keep(version: models.ModelVersion) -> Backup:
    """A version's backup, made unless it is there."""
    return backups.keep(
        version.name, version.version, version.uri, tags=dict(version.tags), mlflow_run_id=version.run_id
    )


def choose(evaluated: dict[str, Any]) -> str:
    """The task that the gates lead to. A challenger that a person has to decide about is deployed once that is done."""
    evaluation = Evaluation.model_validate_json(objects.read_bytes(evaluated["evaluation_uri"]))
    logger.info("%s", evaluation.reason)
    return ROLL_BACK if evaluation.verdict == "rejected" else DEPLOY


def lose(dag_run: DagRun, evaluated: dict[str, Any], backed_up: dict[str, Any]) -> dict[str, Any]:
    """Rejects a challenger that has lost, and makes sure that the champion is as it was, by its backup.

    It is left where it is. Only if something has put the challenger in its place, the champion of before comes back;
    and files of it that were changed or deleted are brought back.
    """
    decided = promotion_steps.decide_on_challenger(dag_run, evaluated)
    if decided["outcome"] == "promoted":  # the champion has changed meanwhile, and the new one is worse than it
        return decided
    told = _as_before(pinned_plan(dag_run.run_id).model_name, backed_up["version"], decided["version"], dag_run)
    notes.add_to_note(dag_run.dag_id, dag_run.run_id, plain(told))
    return decided | {"champion": told}


def _as_before(model_name: str, before: str | None, challenger: str | None, dag_run: DagRun) -> str:
    """Sees to the champion after a lost comparison; says what was found and done."""
    champion = models.by_alias(model_name, CHAMPION)
    if before is None:
        return "there was no champion before, and there is none" if champion is None else "there was no backup to make"
    try:
        backup = backups.require(model_name, before)
    except BackupError as error:
        raise AirflowFailException(f"the champion cannot be compared with its backup: {error}") from error
    version = models.by_version(model_name, before)
    wrong = backups.bring_back(backup, version.uri) if version else []
    mended = f"; of its files {', '.join(wrong)}: brought back from the backup" if wrong else ""
    if champion is not None and champion.version == before:
        return f"version {before} is the champion as before, and its files are those of its backup{mended}"
    if champion is not None and champion.version != challenger:
        return (
            f"version {champion.version} is the champion now, by somebody's decision while this run trained: it stays. "
            f"Version {before}, the champion of before, is as its backup{mended}"
        )
    try:
        back = rollback.roll_back(
            model_name,
            actor=f"dag:{dag_run.dag_id}",
            reason=f"version {challenger} has lost the comparison, and something had made it the champion",
            to_version=before,
            replaces=challenger,
            dag_run_id=dag_run.run_id,
        )
    except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
        raise AirflowFailException(f"version {before} could not be made the champion again: {error}") from error
    return f"{back}{mended}"
