"""The second half of a training run: challenger against champion, the decision, and what is said about it."""
# Only imported inside tasks.

import logging
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.api.common.trigger_dag import trigger_dag
from airflow.configuration import conf
from airflow.exceptions import AirflowException, DagRunAlreadyExists
from airflow.models import DagRun
from airflow.utils.types import DagRunType

from include import lake, objects
from include.datasets import golden, snapshots
from include.datasets.checks import text_keys
from include.datasets.intake import Intake, Plan
from include.evaluation.answers import write_answers
from include.evaluation.evaluate import Context, Evaluation, ShownFile, evaluate
from include.evaluation.gates import Thresholds
from include.evaluation.report import PICTURES, write_report
from include.markdown import plain
from include.orchestration import awaiting, canaries, golden_rows, handover, notes, serving_trial, settling, watching
from include.orchestration.batches import PIPELINE
from include.orchestration.intake_steps import pinned_plan
from include.orchestration.outcome import conclude
from include.orchestration.warehouse import warehouse
from include.registry import approvals, ledger, mlflow_runs, models, promotion, standing, versions
from include.registry.code import code_hash
from include.registry.model_card import model_card
from include.settings import settings
from include.training.job import Job, Result
from include.uploads.lifecycle import Because, State

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

LONGEST_REASON = 200  # characters of it that a note shows
MOST_EVALUATIONS = 3  # against a champion that changes meanwhile


def evaluate_challenger(dag_run: DagRun, result_uri: str, *, anew: bool = False) -> dict[str, Any]:
    """Scores challenger and champion on the golden set, and writes the report. Returns where it lies and the verdict.

    A job that has been decided on keeps its evaluation, unless this one is to be made ``anew``. If the setting
    ``promotion`` or the run's parameter is "manual", the verdict is a person's where the gates do not reject. Raises
    GoldenSetError if golden texts are in the dataset that the challenger was trained on, ChampionLost if the champion
    has no files.
    """
    result = Result.model_validate(objects.read_json(result_uri))
    plan = pinned_plan(dag_run.run_id)
    settling.hold(plan)
    uri = lake.report(dag_run.dag_id, dag_run.run_id, "evaluation.json")
    evaluation = (None if anew else _decided(uri, result.job_id)) or measure(
        plan, result, dag_run.dag_id, _promotion(dag_run)
    )
    write(evaluation, uri)
    logger.info("%s", evaluation.reason)
    return {"evaluation_uri": uri, "result_uri": result_uri, "promote": evaluation.decision.promote}


def write(evaluation: Evaluation, uri: str, *, drawn: bool = False) -> None:
    """Writes an evaluation to its URI, with its report beside it and in MLflow; ``drawn`` if its pictures lie there."""
    objects.write_bytes(uri, evaluation.model_dump_json(indent=2).encode())
    with tempfile.TemporaryDirectory() as folder:
        for picture in (f"{name}.svg" for name in PICTURES if drawn):
            with suppress(FileNotFoundError):  # there was nothing to draw
                objects.download_file(f"{uri.rsplit('/', 1)[0]}/{picture}", Path(folder) / picture)
        write_report(evaluation, Path(folder))
        if evaluation.answers:  # else they lie there since it was decided
            write_answers(evaluation.answers, Path(folder))
        objects.upload(Path(folder), uri.rsplit("/", 1)[0])
        context = evaluation.context
        url = _airflow_url(context.dag_id, context.dag_run_id)
        mlflow_runs.log_report(context.mlflow_run_id, Path(folder), url, evaluation)


def write_card(evaluation: Evaluation, version: str) -> None:
    """Writes a version's model card, ``README.md`` beside its files."""
    job_id = evaluation.context.job_id
    job = Job.model_validate(objects.read_json(lake.job(job_id, "job.json")))
    result = Result.model_validate(objects.read_json(lake.job(job_id, "result.json")))
    config = objects.read_json(f"{result.model_uri.rstrip('/')}/config.json")
    mean_pooled = config.get("model_type") == "mean-pooled-classifier"
    card = model_card(job, result, evaluation, version, mean_pooled=mean_pooled)
    objects.write_bytes(lake.model(job.model_name, version, "README.md"), card.encode())


def _promotion(dag_run: DagRun) -> Literal["automatic", "manual"]:
    """A run may be stricter than the deployment, not the other way round."""
    asked = (settings().promotion, (dag_run.conf or {}).get("promotion"))
    return "manual" if "manual" in asked else "automatic"


def decide_on_challenger(dag_run: DagRun, evaluated: dict[str, Any]) -> dict[str, Any]:
    """Registers the challenger and promotes or rejects it. Returns its version and the outcome.

    If the champion has changed since it was compared with, by a rollback for example, the challenger is evaluated anew;
    if the new one is of other data than the challenger was built on, rows would be lost or come back: then it is
    superseded, and its own rows are built upon the new champion's by the next run. A champion that changes again and
    again fails the task, which is tried again later.
    """
    for _ in range(MOST_EVALUATIONS):
        try:
            return _decide(dag_run, evaluated)
        except promotion.ChampionChanged as error:
            logger.warning("%s", error)
            evaluated = evaluate_challenger(dag_run, evaluated["result_uri"], anew=True)
    raise AirflowException(
        f"the champion has changed during each of {MOST_EVALUATIONS} evaluations; what keeps moving the alias champion "
        "is in the promotion ledger. This task is tried again; nothing was decided"
    )


def _decide(dag_run: DagRun, evaluated: dict[str, Any]) -> dict[str, Any]:
    """``decide_on_challenger`` against the champion that the challenger was evaluated with. Raises ChampionChanged."""
    evaluation = Evaluation.model_validate_json(objects.read_bytes(evaluated["evaluation_uri"]))
    result = Result.model_validate(objects.read_json(evaluated["result_uri"]))
    plan = pinned_plan(dag_run.run_id)
    asked = approvals.of_run(warehouse(), plan.model_name, dag_run.run_id)
    if asked is not None and asked.answer is not None:  # whatever is repeated: what was answered holds
        return {"version": asked.asked.version, "outcome": approvals.outcome_of(asked.answer)}
    if not versions.is_decided(plan.model_name, result.job_id):
        settling.hold(plan)  # this task alone was cleared, and the listener has released the batches of the failed run
    if asked is None and (superseded := _superseded(plan, evaluation, f"dag:{dag_run.dag_id}")):
        _start_over(dag_run, plan, result, superseded)
        return {"version": None, "outcome": "superseded"}
    version = _register(plan, evaluation.context, result)
    evaluation = _naming(evaluation, version, evaluated["evaluation_uri"])
    unchanged = evaluation.context.champion_version == version
    outcome = "unchanged" if unchanged else _carry_out(plan, dag_run.dag_id, evaluation, version)
    _conclude(dag_run, plan, evaluation, result, version, outcome)
    return {"version": version, "outcome": outcome}


def _register(plan: Plan, context: Context, result: Result) -> str:
    """Registers the challenger, once for a job; its version."""
    tags = {
        "job_id": result.job_id,
        "dataset_id": context.dataset_id,
        versions.PARENT: plan.parent_dataset_id or "",
        "base_model": Path(context.base_model).name,
    }
    return models.register(plan.model_name, result.model_uri, result.mlflow_run_id, tags)


def _carry_out(plan: Plan, dag_id: str, evaluation: Evaluation, version: str) -> str:
    """Promotes or rejects the challenger, or asks a person, as the evaluation's verdict says; returns the verdict."""
    engine, verdict = warehouse(), evaluation.verdict
    new_anchor = evaluation.decision.new_anchor
    entry = ledger.Entry.of(
        evaluation, version=version, actor=f"dag:{dag_id}", code_hash=code_hash(), new_anchor=new_anchor
    )
    if verdict == "awaiting_approval":
        awaiting.ask(plan, dag_id, entry, engine)
    else:
        (promotion.promote if verdict == "promoted" else promotion.reject)(entry, engine)
    write_card(evaluation, version)
    if _waits(evaluation, verdict) and (registered := models.by_version(plan.model_name, version)):
        models.tag(registered, {versions.ROWS: versions.RELEASED})
    return verdict


def _naming(evaluation: Evaluation, version: str, uri: str) -> Evaluation:
    """The evaluation with the version that its challenger has now, written again with its report if it had none."""
    if evaluation.context.challenger_version == version:
        return evaluation
    context = evaluation.context.model_copy(update={"challenger_version": version})
    named = evaluation.model_copy(update={"context": context})
    write(named, uri, drawn=True)
    return named


def _decided(uri: str, job_id: str) -> Evaluation | None:
    """What this run found before, if the job has been decided on since: a repeated run must not decide anew."""
    if not objects.exists(uri):
        return None
    evaluation = Evaluation.model_validate_json(objects.read_bytes(uri))
    same_job = evaluation.context.job_id == job_id
    return evaluation if same_job and versions.is_decided(evaluation.context.model_name, job_id) else None


def judging_rows(plan: Plan, dataset_uri: str) -> "pd.DataFrame":
    """The golden rows that a run's challenger answers: text, label, established.

    Raises GoldenSetError if they are gone, or if one is in the dataset that it was trained on.
    """
    dataset_id = _dataset_id(dataset_uri)
    golden_set = golden.read(plan.model_name)
    if golden_set is None:
        raise golden.GoldenSetError(f"there is no golden set at {lake.golden(plan.model_name)}; was it deleted?")
    golden.check_no_leak(snapshots.read(dataset_id)["text"], golden_set, dataset_uri)
    origin = objects.read_json(lake.staging(plan.run_id, "dataset.json")).get("golden_origin", dataset_id)
    return golden_set.renamed(plan.label_mapping).judging(origin)


def measure(plan: Plan, result: Result, dag_id: str, how: Literal["automatic", "manual"]) -> Evaluation:
    """Scores a run's challenger, the champion and the anchor on the golden rows of now, tries it, and judges it."""
    job = Job.model_validate(objects.read_json(lake.job(result.job_id, "job.json")))
    judging = judging_rows(plan, job.dataset_uri)
    engine = warehouse()
    champion = standing.champion(plan.model_name, engine).champion
    anchor = versions.anchor(plan.model_name, engine) if champion else None
    evaluation = evaluate(
        list(judging["text"]),
        list(judging["label"]),
        result.model_uri,
        champion.uri if champion else None,
        Thresholds.from_settings(settings()).model_copy(update={"promotion": how}),
        anchor_uri=anchor.uri if anchor else None,
        established=list(judging["established"]),
        keys=[f"{key:016x}" for key in text_keys(list(judging["text"]))],
        context=Context(
            model_name=plan.model_name,
            base_model=job.base_model,
            dataset_id=_dataset_id(job.dataset_uri),
            job_id=result.job_id,
            dag_id=dag_id,
            dag_run_id=plan.run_id,
            mlflow_run_id=result.mlflow_run_id,
            champion_version=champion.version if champion else "",
            anchor_version=anchor.version if anchor and anchor != champion else "",
            label_mapping=plan.label_mapping,
            best_epoch=result.best_epoch,
            history=result.history,
            files=[ShownFile(**file.model_dump(include=set(ShownFile.model_fields))) for file in _intake(plan).files],
            warnings=_intake(plan).warnings,
        ),
    )
    return serving_trial.with_trial(evaluation, result.model_uri, list(judging["text"]))


def _dataset_id(dataset_uri: str) -> str:
    return dataset_uri.rstrip("/").rsplit("/", 1)[-1]


def _intake(plan: Plan) -> Intake:
    return Intake.model_validate(objects.read_json(lake.staging(plan.run_id, "intake.json")))


def _superseded(plan: Plan, evaluation: Evaluation, actor: str) -> str:
    """Why a challenger must not be decided on: the champion is of other data than it was built on. Empty if it is not.

    A decision that this run has made already stands.
    """
    champion = models.by_alias(plan.model_name, models.CHAMPION)
    made = models.of_job(plan.model_name, evaluation.context.job_id)
    if champion is None or champion.tags.get("dataset_id") == plan.parent_dataset_id:
        return ""
    if made is not None:
        entry = ledger.Entry.of(evaluation, version=made.version, actor=actor, code_hash="")
        was_champion = made.version in (champion.version, evaluation.context.champion_version)
        if was_champion or ledger.find(warehouse(), entry.decision_id):
            return ""
    return (
        f"the champion is version {champion.version} now, trained on dataset {champion.tags.get('dataset_id')}; this "
        f"challenger was built on {plan.parent_dataset_id or 'none'}. Its rows are built on the new champion's next"
    )


def _start_over(dag_run: DagRun, plan: Plan, result: Result, reason: str) -> None:
    """Gives the run's rows to a run that builds on the new champion, started with what this one was told."""
    # Then the listener tells of its batches again.
    told = dag_run.run_type == DagRunType.DATASET_TRIGGERED or dag_run.dag_id != PIPELINE
    intake = _intake(plan)
    if told or settling.batch_ids(plan):
        because = Because.SUPERSEDED if told else Because.WAITS
        settling.settle(plan, intake, State.RELEASED, because, reason)
    conclude(dag_run.dag_id, plan, intake, "superseded", reason, links=mlflow_runs.links(result.mlflow_run_id))
    if not told:
        with suppress(DagRunAlreadyExists):
            trigger_dag(dag_run.dag_id, run_id=f"{dag_run.run_id}__again", conf=dag_run.conf)
    _drop_table(plan)


def _waits(evaluation: Evaluation, outcome: str) -> bool:
    """Whether the challenger's rows stay with those that wait: it was rejected, and not shown worse."""
    return outcome == "rejected" and evaluation.decision.shown_worse is False


def _drop_table(plan: Plan) -> None:
    try:
        handover.drop(plan.run_id)
    except Exception:  # the run has its outcome; a sweep drops what is left
        logger.exception("could not drop the table of run %s", plan.run_id)


def _end_of_batches(evaluation: Evaluation, outcome: str) -> tuple[State, Because]:
    """What becomes of a run's uploads by its outcome."""
    if _waits(evaluation, outcome):
        return State.RELEASED, Because.WAITS
    return {"rejected": State.SET_ASIDE, "awaiting_approval": State.AWAITING}.get(outcome, State.USED), Because.NONE


def _conclude(dag_run: DagRun, plan: Plan, evaluation: Evaluation, result: Result, version: str, outcome: str) -> None:
    if outcome == "promoted":
        golden_rows.follow_champion(plan.model_name, f"version {version} was promoted", promoted=True)
        canaries.begin(plan.model_name, version)
        watching.begin(plan.model_name, version, warehouse(), dag_id=dag_run.dag_id)
    state, because = _end_of_batches(evaluation, outcome)
    unchanged = f"version {version} is the champion already; these rows and parameters make the same model again"
    settled = unchanged if outcome == "unchanged" else evaluation.reason
    mine = settling.settle(plan, _intake(plan), state, because, settled)
    if outcome == "promoted":
        awaiting.catch_up(plan.model_name, warehouse())
    _drop_table(plan)
    champion = version if outcome == "promoted" else evaluation.context.champion_version
    metrics = evaluation.challenger.metrics
    reasons = {
        "awaiting_approval": f"{awaiting.how_to_answer(plan.run_id, version)}. {evaluation.reason}",
        "unchanged": unchanged,
    }
    reason = reasons.get(outcome, f"version {version}: {evaluation.reason}")
    asked = {name: told for name in ("reason", "decision_id") if (told := (dag_run.conf or {}).get(name))}
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
        batches=sorted({*mine, *(source.batch_id for source in plan.sources)}),
        **({"asked": asked} if asked else {}),
    )
    if told := asked.get("reason"):
        notes.add_to_note(dag_run.dag_id, plan.run_id, f"trained because: {plain(told[:LONGEST_REASON])}", first=False)


def _airflow_url(dag_id: str, run_id: str) -> str:
    base = conf.get("webserver", "base_url").rstrip("/")
    return f"{base}/dags/{dag_id}/grid?dag_run_id={quote(run_id, safe='')}"
