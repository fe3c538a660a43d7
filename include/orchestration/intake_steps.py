"""The first half of a training run: which files it works on, which of their rows count, which dataset they make."""
# Only imported inside tasks.

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.models import DagRun
from airflow.stats import Stats
from airflow.utils.types import DagRunType

from include import lake, objects, renaming
from include.datasets import golden, newcomers
from include.datasets.building import build_dataset
from include.datasets.intake import Intake, Plan, Source, copy_to_staging, sources_at, validate_files
from include.datasets.judging import UNAPPROVED
from include.orchestration import batches, golden_rows, handover, listening, reconciling, settling, sweeping
from include.orchestration.outcome import conclude
from include.orchestration.training_task import provide_training_pool
from include.orchestration.warehouse import warehouse
from include.registry import label_wishes, versions
from include.registry.promotion import ChampionLost
from include.settings import settings
from include.uploads import claims
from include.uploads.lifecycle import Because, State

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

KILLED_TRIES = 2


def validate(dag_run: DagRun, params: dict[str, Any]) -> dict[str, Any]:
    """Reads and judges the run's files. Returns the URI and hash of the accepted rows, and the counts of all rows.

    Skips the rest of the run if an upload left nothing to train on, or if its rows have to wait for more.
    """
    provide_training_pool()
    try:
        mended = reconciling.reconcile(settings().model_name)
    except ChampionLost as error:  # no later try finds it
        raise AirflowFailException(str(error)) from error
    plan = _plan(dag_run, params)
    _take_batches(plan)
    intake = _validate_files(plan)
    intake.warnings = [*mended, *renaming.unheeded(plan.label_mapping, _mapping(params)), *intake.warnings]
    objects.write_json(lake.staging(plan.run_id, "intake.json"), intake.model_dump())
    if intake.missing:
        _end_without_training(dag_run, plan, intake, "waiting_for_more_data", intake.missing)
    plan.pin()
    _report_waits(plan)
    uploaded = dag_run.run_type == DagRunType.DATASET_TRIGGERED
    if intake.accepted_rows == 0 or (uploaded and not plan.sources and not intake.newcomers):
        own = {source.batch_id for source in plan.sources}
        files = [file for file in intake.files if UNAPPROVED in file.waits_for and file.batch_id in own]
        unapproved = [warning for file in files for warning in file.warnings]
        if unapproved:
            how = f'{"; ".join(unapproved)}: make readmit RUN="{plan.run_id}" APPROVE=1, or the DAG decide_upload'
            _end_without_training(dag_run, plan, intake, "waiting_for_approval", how)
        if intake.rows["waiting"]:
            news = "; ".join(warning for file in intake.files if file.waiting for warning in file.warnings)
            _end_without_training(dag_run, plan, intake, "waiting_for_more_data", news)
        _end_without_training(dag_run, plan, intake, "nothing_to_train", _why_nothing(intake))
    return {"accepted_uri": intake.accepted_uri, "accepted_hash": intake.accepted_hash, "rows": intake.rows}


def preprocess(rows: "pd.DataFrame", run_id: str, accepted_hash: str) -> dict[str, Any]:
    """Accepted rows and the champion's become a snapshot. Returns its id, URI and row counts.

    Raises AirflowFailException if these are not the rows that ``validate_data`` accepted in this run, or if another run
    has its batches by now.
    """
    plan = pinned_plan(run_id)
    handover.check(rows, accepted_hash, run_id)
    settling.hold(plan)
    with sweeping.no_datasets_deleted():
        manifest = build_dataset(plan, rows)
        facts = {name: manifest[name] for name in ("dataset_id", "golden_origin")}
        objects.write_json(lake.staging(run_id, "dataset.json"), facts)
    golden_rows.enter_corrections(plan)
    return {name: manifest[name] for name in ("dataset_id", "dataset_uri", "rows")}


def _take_batches(plan: Plan) -> None:
    """Makes the plan's batches this run's own, before anything is read of them."""
    if _is_pinned(plan.run_id):
        settling.hold(plan)
    else:
        for batch_id in settling.batch_ids(plan):
            if not claims.take(batch_id, plan.run_id):
                raise AirflowException(f"batch {batch_id} was taken by another run meanwhile; trying again without it")
    batches.record(settling.batch_ids(plan))


def _validate_files(plan: Plan) -> Intake:
    """Reads the plan's files, each in a process of its own if two tries of this run did not survive that.

    A try leaves a mark when it begins to read and another when it ends. One that is killed, as for want of memory,
    leaves the first alone.
    """
    marks = lake.staging(plan.run_id, "tries/")
    names = [uri.rsplit("/", 1)[-1].split(".") for uri in objects.find(marks)]
    killed = {name for name, kind, _ in names if kind == "begun"} - {name for name, kind, _ in names if kind == "ended"}
    isolated = len(killed) >= KILLED_TRIES
    if isolated:
        logger.warning("%d tries were killed while they read these files: now each in its own process", len(killed))
    mine = uuid4().hex
    objects.write_json(f"{marks}{mine}.begun.json", {"at": datetime.now(UTC)})
    try:
        intake = validate_files(plan, isolated=isolated)
    except MemoryError:
        raise
    except BaseException:
        objects.write_json(f"{marks}{mine}.ended.json", {"at": datetime.now(UTC)})
        raise
    for name in {mine} | killed:
        objects.write_json(f"{marks}{name}.ended.json", {"at": datetime.now(UTC)})
    return intake


def pinned_plan(run_id: str) -> Plan:
    """What the run works on."""
    return Plan.model_validate_json(objects.read_bytes(lake.staging(run_id, "plan.json")))


def _is_pinned(run_id: str) -> bool:
    return objects.exists(lake.staging(run_id, "plan.json"))


def _plan(dag_run: DagRun, params: dict[str, Any]) -> Plan:
    """The run's pinned plan if it has one, else a new one."""
    dataset_uri = params["dataset_uri"]
    if _is_pinned(dag_run.run_id):
        return _own(pinned_plan(dag_run.run_id), dag_run)
    model_name = settings().model_name
    reconciling.end_unsaid_waits(model_name, listening.pipeline())
    golden_rows.follow_champion(model_name, "a run found it so")
    sources = copy_to_staging(sources_at(dataset_uri), dag_run.run_id) if dataset_uri else _uploaded(dag_run.run_id)
    plan = plan_of(dag_run.run_id, sources, params).model_copy(update={"dag_id": dag_run.dag_id})
    if not plan.sources and plan.parent_dataset_id is None:
        raise AirflowFailException(
            f"there is no labelled data yet: drop a .csv, .jsonl or .parquet in {lake.incoming()}"
        )
    if len(left := _labels_left(plan)) == 1:
        raise AirflowFailException(f"label_mapping leaves one label, {left.pop()!r}; a classifier needs two")
    return plan


def plan_of(run_id: str, sources: list[Source], params: dict[str, Any]) -> Plan:
    """What a run that begins now works on, with these files; changes nothing."""
    model_name = settings().model_name
    golden_set = golden.read(model_name) or golden.nothing()
    engine = warehouse()
    wishes = label_wishes.of_model(engine, model_name)
    waited = [Source(uri=uri, key=key, batch_id=name) for uri, key, name in newcomers.waiting(model_name)]
    return Plan(
        run_id=run_id,
        model_name=model_name,
        sources=sources,
        newcomers=waited,
        approved=sorted(
            name for name in {one.batch_id for one in (*sources, *waited)} if golden_rows.is_approved(name)
        ),
        parent_dataset_id=versions.parent_dataset_id(model_name, engine),
        golden_number=golden_set.number,
        text_column=params.get("text_column") or "",
        label_column=params.get("label_column") or "",
        label_mapping=renaming.combine(golden_set.label_mapping, renaming.combine(wishes.mapping, _mapping(params))),
        admitted=list(wishes.admitted),
    )


def _own(plan: Plan, dag_run: DagRun) -> Plan:
    """A pinned plan, if it is not that of another DAG's run. Raises AirflowFailException."""
    if plan.dag_id in ("", dag_run.dag_id):
        return plan
    raise AirflowFailException(
        f"a run of {plan.dag_id} has the id {plan.run_id}, too, and a run's id names its files: start this one under "
        "another id"
    )


def _labels_left(plan: Plan) -> set[str]:
    """What the labels of the champion's dataset are called by the plan's mapping; empty if it renames none."""
    if not plan.label_mapping or plan.parent_dataset_id is None:
        return set()
    manifest = objects.read_json(lake.dataset(plan.parent_dataset_id, "manifest.json"))
    return {plan.label_mapping.get(label, label) for label in manifest["label_counts"]}


def _mapping(params: dict[str, Any]) -> dict[str, str]:
    """The labels that the run wants to rename or merge."""
    return renaming.check(params.get("label_mapping") or {})


def _report_waits(plan: Plan) -> None:
    """Tells whoever collects Airflow's metrics how long each upload lay claimed before this run took it."""
    for batch_id in settling.batch_ids(plan):
        batch = claims.read_batch(batch_id)
        for file in batch.files if batch else []:
            Stats.timing("upload_wait", datetime.now(UTC) - file.claimed_at)


def _uploaded(run_id: str) -> list[Source]:
    """The files of the batches that this run has taken, or that nobody has; also those that a dead run has left."""
    reconciling.release_abandoned(listening.pipeline())
    found = claims.batches_of(run_id) + claims.waiting_batches()
    return [Source(batch_id=batch.batch_id, key=file.key, uri=file.uri) for batch in found for file in batch.files]


def _why_nothing(intake: Intake) -> str:
    if not intake.files:
        return "an earlier run used the upload already"
    counts: Counter[str] = Counter()
    for file in intake.files:
        counts.update(file.by_rule)
    unreadable = counts.pop("unreadable_file", 0)
    told = [f"{unreadable} {'file' if unreadable == 1 else 'files'} cannot be read"] if unreadable else []
    return f"no row can be trained on: {', '.join([*told, *(f'{n} {rule}' for rule, n in counts.most_common())])}"


def _end_without_training(dag_run: DagRun, plan: Plan, intake: Intake, outcome: str, reason: str) -> None:
    state, because = {
        "waiting_for_more_data": (State.RELEASED, Because.WAITS),
        "waiting_for_approval": (State.SET_ASIDE, Because.NONE),
        "nothing_to_train": (State.QUARANTINED, Because.NONE),
    }[outcome]
    settling.settle(plan, intake, state, because, reason)
    conclude(dag_run.dag_id, plan, intake, outcome, reason)
    raise AirflowSkipException(reason)
