"""The second half of a training run: challenger against champion, the decision, and what is said about it."""
# Only imported inside tasks.

import logging
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.models import DagRun
from airflow.providers.postgres.hooks.postgres import PostgresHook

from include import lake
from include.datasets import golden, snapshots
from include.datasets.intake import Intake, Plan
from include.evaluation.evaluate import Context, Evaluation, FileAccount
from include.evaluation.evaluate import evaluate as evaluate_models
from include.evaluation.gates import Thresholds
from include.evaluation.report import write_report
from include.orchestration.defaults import WAREHOUSE
from include.orchestration.intake_steps import pinned_plan
from include.orchestration.outcome import conclude
from include.registry import ledger, lineage, mlflow_runs, models, promotion
from include.registry.code import code_hash
from include.registry.model_card import model_card
from include.settings import settings
from include.training.job import Job, Result

logger = logging.getLogger(__name__)


def evaluate(dag_run: DagRun, result_uri: str) -> dict[str, Any]:
    """Scores challenger and champion on the golden set, and writes the report. Returns where it lies and the verdict.

    Raises GoldenSetError if golden texts are in the dataset that the challenger was trained on.
    """
    result = Result.model_validate(lake.read_json(result_uri))
    plan = pinned_plan(dag_run.run_id)
    uri = lake.report(dag_run.dag_id, dag_run.run_id, "evaluation.json")
    evaluation = _decided(uri, result.job_id) or _evaluate(dag_run, plan, result)
    lake.write_bytes(uri, evaluation.model_dump_json(indent=2).encode())
    with tempfile.TemporaryDirectory() as folder:
        write_report(evaluation, Path(folder))
        lake.upload(Path(folder), uri.rsplit("/", 1)[0])
        mlflow_runs.log_report(result.mlflow_run_id, Path(folder), _airflow_url(dag_run), evaluation)
    logger.info("%s", evaluation.decision.reason)
    return {"evaluation_uri": uri, "result_uri": result_uri, "promote": evaluation.decision.promote}


def decide(dag_run: DagRun, evaluated: dict[str, Any]) -> dict[str, Any]:
    """Registers the challenger and promotes or rejects it. Returns its version and the outcome.

    If the champion has changed since it was compared with, by a rollback for example, the challenger is evaluated anew.
    """
    evaluation = Evaluation.model_validate_json(lake.read_bytes(evaluated["evaluation_uri"]))
    result = Result.model_validate(lake.read_json(evaluated["result_uri"]))
    job = Job.model_validate(lake.read_json(lake.job(result.job_id, "job.json")))
    plan, context = pinned_plan(dag_run.run_id), evaluation.context
    tags = {"job_id": result.job_id, "dataset_id": context.dataset_id, "base_model": Path(context.base_model).name}
    version = models.register(plan.model_name, result.model_uri, result.mlflow_run_id, tags)
    engine = PostgresHook(WAREHOUSE).get_sqlalchemy_engine()
    entry = ledger.Entry.of(evaluation, version=version, actor=f"dag:{dag_run.dag_id}", code_hash=code_hash())
    if evaluation.context.champion_version == version:
        _conclude(dag_run, plan, evaluation, result, version, "unchanged")
        return {"version": version, "outcome": "unchanged"}
    try:
        (promotion.promote if evaluation.decision.promote else promotion.reject)(entry, engine)
    except promotion.ChampionChanged as error:
        logger.warning("%s", error)
        return decide(dag_run, evaluate(dag_run, evaluated["result_uri"]))
    card = model_card(job, result, evaluation, version)
    lake.write_bytes(lake.model(plan.model_name, version, "README.md"), card.encode())
    outcome = "promoted" if evaluation.decision.promote else "rejected"
    _conclude(dag_run, plan, evaluation, result, version, outcome)
    return {"version": version, "outcome": outcome}


def _decided(uri: str, job_id: str) -> Evaluation | None:
    """What this run found before, if the job has been decided on since: a repeated run must not decide anew."""
    if not lake.exists(uri):
        return None
    evaluation = Evaluation.model_validate_json(lake.read_bytes(uri))
    same_job = evaluation.context.job_id == job_id
    return evaluation if same_job and lineage.is_decided(evaluation.context.model_name, job_id) else None


def _evaluate(dag_run: DagRun, plan: Plan, result: Result) -> Evaluation:
    config = settings()
    job = Job.model_validate(lake.read_json(lake.job(result.job_id, "job.json")))
    dataset_id = job.dataset_uri.rstrip("/").rsplit("/", 1)[-1]
    frozen = golden.read(plan.model_name)
    if frozen is None:
        raise golden.GoldenSetError(f"there is no golden set at {lake.golden(plan.model_name)}; was it deleted?")
    golden.check_no_leak(snapshots.read(dataset_id)["text"], frozen, job.dataset_uri)
    champion = models.by_alias(plan.model_name, models.CHAMPION)
    return evaluate_models(
        list(frozen.rows["text"]),
        list(frozen.rows["label"]),
        result.model_uri,
        champion.uri if champion else None,
        Thresholds.from_settings(config),
        golden_hash=frozen.sha256,
        context=Context(
            model_name=plan.model_name,
            base_model=job.base_model,
            dataset_id=dataset_id,
            job_id=result.job_id,
            dag_id=dag_run.dag_id,
            dag_run_id=dag_run.run_id,
            mlflow_run_id=result.mlflow_run_id,
            champion_version=champion.version if champion else "",
            best_epoch=result.best_epoch,
            history=result.history,
            files=[
                FileAccount(**file.model_dump(include=set(FileAccount.model_fields))) for file in _intake(plan).files
            ],
            warnings=_intake(plan).warnings,
        ),
    )


def _intake(plan: Plan) -> Intake:
    return Intake.model_validate(lake.read_json(lake.staging(plan.run_id, "intake.json")))


def _conclude(dag_run: DagRun, plan: Plan, evaluation: Evaluation, result: Result, version: str, outcome: str) -> None:
    champion = version if outcome == "promoted" else evaluation.context.champion_version
    metrics = evaluation.challenger.metrics
    reason = f"version {version}: {evaluation.decision.reason}"
    if outcome == "unchanged":
        reason = f"version {version} is the champion already; these rows and parameters make the same model again"
    conclude(
        dag_run.dag_id,
        plan,
        _intake(plan),
        outcome,
        reason,
        links=mlflow_runs.links(result.mlflow_run_id),
        gates=[gate.model_dump() for gate in evaluation.decision.gates],
        model_version=version,
        champion_version=champion or None,
        dataset_id=evaluation.context.dataset_id,
        job_id=result.job_id,
        mlflow_run_id=result.mlflow_run_id,
        golden={"rows": evaluation.golden_rows, "accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1},
        seconds=result.seconds,
    )


def _airflow_url(dag_run: DagRun) -> str:
    base = conf.get("webserver", "base_url").rstrip("/")
    return f"{base}/dags/{dag_run.dag_id}/grid?dag_run_id={quote(dag_run.run_id, safe='')}"
