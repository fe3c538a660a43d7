"""The first half of a training run: which files it works on, which of their rows count, which dataset they make."""
# Only imported inside tasks.

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.models import DagRun
from airflow.stats import Stats
from airflow.utils.types import DagRunType

from include import lake
from include.datasets import golden
from include.datasets.intake import Intake, Plan, Source, build_dataset, sources_at, stage, take_in
from include.orchestration.outcome import conclude
from include.orchestration.training_task import provide_training_pool
from include.registry import lineage
from include.settings import settings
from include.uploads import claims

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def validate(dag_run: DagRun, dataset_uri: str | None) -> dict[str, Any]:
    """Reads and judges the run's files. Returns the URI of the accepted rows and the counts of all rows.

    Skips the rest of the run if an upload left nothing to train on, or if its rows have to wait for more.
    """
    provide_training_pool()
    plan = _plan(dag_run, dataset_uri)
    intake = take_in(plan)
    lake.write_json(lake.staging(plan.run_id, "intake.json"), intake.model_dump())
    if intake.missing:
        _end_without_training(dag_run, plan, intake, "waiting_for_more_data", intake.missing)
    for batch_id in _batch_ids(plan):
        if not claims.take(batch_id, plan.run_id):
            raise AirflowException(f"batch {batch_id} was taken by another run meanwhile; trying again without it")
    plan.pin()
    _report_waits(plan)
    uploaded = dag_run.run_type == DagRunType.DATASET_TRIGGERED
    if intake.accepted_rows == 0 or (uploaded and not plan.sources):
        _end_without_training(dag_run, plan, intake, "nothing_to_train", _why_nothing(intake))
    return {"accepted_uri": intake.accepted_uri, "rows": intake.rows}


def preprocess(rows: "pd.DataFrame", run_id: str) -> dict[str, Any]:
    """Accepted rows and the champion's become a snapshot. Returns its id, URI and row counts."""
    manifest = build_dataset(pinned_plan(run_id), rows)
    return {name: manifest[name] for name in ("dataset_id", "dataset_uri", "rows")}


def pinned_plan(run_id: str) -> Plan:
    """What the run works on."""
    return Plan.model_validate_json(lake.read_bytes(lake.staging(run_id, "plan.json")))


def _plan(dag_run: DagRun, dataset_uri: str | None) -> Plan:
    """The run's pinned plan if it has one, else a new one."""
    if lake.exists(lake.staging(dag_run.run_id, "plan.json")):
        return pinned_plan(dag_run.run_id)
    model_name = settings().model_name
    frozen = golden.read(model_name)
    plan = Plan(
        run_id=dag_run.run_id,
        model_name=model_name,
        sources=stage(sources_at(dataset_uri), dag_run.run_id) if dataset_uri else _uploaded(dag_run.run_id),
        parent_dataset_id=lineage.parent_dataset_id(model_name),
        golden_sha256=frozen.sha256 if frozen else None,
    )
    if not plan.sources and plan.parent_dataset_id is None:
        raise AirflowFailException(
            f"there is no labelled data yet: drop a .csv, .jsonl or .parquet in {lake.incoming()}"
        )
    return plan


def _report_waits(plan: Plan) -> None:
    """Tells whoever collects Airflow's metrics how long each upload lay claimed before this run took it."""
    for batch_id in _batch_ids(plan):
        batch = claims.read_batch(batch_id)
        for file in batch.files if batch else []:
            Stats.timing("upload_wait", datetime.now(UTC) - file.claimed_at)


def _uploaded(run_id: str) -> list[Source]:
    """The files of the batches that this run has taken, or that nobody has."""
    batches = claims.batches_of(run_id) + claims.waiting_batches()
    return [Source(batch_id=batch.batch_id, key=file.key, uri=file.uri) for batch in batches for file in batch.files]


def _batch_ids(plan: Plan) -> list[str]:
    """The claimed batches among a plan's sources; files named by URI belong to nobody."""
    return sorted({source.batch_id for source in plan.sources if source.uri.startswith(lake.claims(source.batch_id))})


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
    conclude(dag_run.dag_id, plan, intake, outcome, reason)
    raise AirflowSkipException(reason)
