"""Deletes what nothing refers to any more: old claims, rows set aside, staging, jobs, datasets, and old tables."""
# Only imported inside tasks.

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from typing import Any

from airflow.models import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import State

from include import lake, objects
from include.objects import Stored
from include.orchestration import handover
from include.orchestration.warehouse import warehouse
from include.registry import approvals, ledger, models, versions
from include.settings import settings
from include.uploads import lifecycle, open_batches
from include.uploads.expiry import delete_all, expire_claims, older

logger = logging.getLogger(__name__)

DATASETS_LOCK = "datasets"


def sweep() -> dict[str, int]:
    """Deletes all that is older than the settings say and not referred to; how many objects of each kind."""
    config = settings()
    deleted = {
        "tables": handover.drop_of_ended_runs(),
        **expire_claims(timedelta(days=config.claims_days)),
        "staging": _sweep_staging(timedelta(days=config.staging_days)),
        "set_aside": _sweep_set_aside(timedelta(days=config.claims_days)),
        "jobs": _sweep_jobs(timedelta(days=config.jobs_days)),
        "datasets": _sweep_datasets(timedelta(days=config.datasets_days)),
        "drafts": _sweep_drafts(timedelta(days=config.drafts_days)),
    }
    logger.info("deleted %s", ", ".join(f"{number} {what}" for what, number in deleted.items()))
    return deleted


@contextmanager
def no_datasets_deleted() -> Iterator[Any]:
    """Holds sweeps off datasets while the block runs: what is being made may be there from long ago."""
    with ledger.exclusive(warehouse(), DATASETS_LOCK) as connection:
        yield connection


def _sweep_staging(age: timedelta) -> int:
    old = _old_folders(objects.listing(f"{lake.root()}/staging/"), "staging", age)
    kept = {lake.slug(run_id) for run_id in (*_unfinished_runs(), *_runs_that_await())}
    return sum(delete_all(listed) for name, listed in old.items() if name not in kept)


def _sweep_drafts(age: timedelta) -> int:
    """A draft that was handed over has been copied to incoming/."""
    old = _old_folders(objects.listing(lake.draft()), "drafts", age)
    return sum(delete_all(listed) for listed in old.values())


def _sweep_set_aside(age: timedelta) -> int:
    """Rows of new labels that runs have set aside go when the files of their uploads do."""
    room = f"waiting/{settings().model_name}/{lake.ASIDE}".rstrip("/")
    old = _old_folders(objects.listing(f"{lake.root()}/{room}/"), room, age)
    kept = {lake.slug(run_id) for run_id in _runs_that_await()} if old else set()
    return sum(delete_all(listed) for name, listed in old.items() if name not in kept)


def _sweep_jobs(age: timedelta) -> int:
    """A job of a model version keeps all but its checkpoints. Nothing goes while anything runs: it may begin one."""
    old = _old_folders(objects.listing(f"{lake.root()}/jobs/"), "jobs", age)
    if not old or _unfinished_runs():
        return 0
    kept = {version.tags.get(models.JOB_ID) for version in models.all_versions()}  # of all runs that have ended
    return sum(
        delete_all(one for one in listed if job_id not in kept or "/checkpoints/" in one.uri)
        for job_id, listed in old.items()
    )


def _sweep_datasets(age: timedelta) -> int:
    with no_datasets_deleted():
        old = _old_folders(objects.listing(f"{lake.root()}/datasets/"), "datasets", age)
        kept = _datasets_in_use() if old else set()
        # The manifest first: without it, whoever wants the same rows writes all of them again.
        manifest_first = {
            name: sorted(listed, key=lambda one: not one.uri.endswith("/manifest.json"))
            for name, listed in old.items()
            if name not in kept
        }
        return sum(delete_all(listed[:1]) + delete_all(listed[1:]) for listed in manifest_first.values())


def _datasets_in_use() -> set[str]:
    """What versions were trained on and made from, what the ledger names, and what unfinished runs work with."""
    found = ledger.datasets(warehouse())
    for version in models.all_versions():
        found |= {version.tags.get("dataset_id", ""), version.tags.get(versions.PARENT, "")}
    for run_id in _unfinished_runs():
        for name, key in (("plan.json", "parent_dataset_id"), ("dataset.json", "dataset_id")):
            uri = lake.staging(run_id, name)
            found.add((objects.read_json(uri).get(key) or "") if objects.exists(uri) else "")
    return found


def _old_folders(listed: list[Stored], room: str, age: timedelta) -> dict[str, list[Stored]]:
    """The folders of a room in which nothing is younger, with their objects."""
    prefix = f"{lake.root()}/{room}/"
    folders = {
        name: list(group) for name, group in groupby(listed, lambda one: one.uri.removeprefix(prefix).split("/")[0])
    }
    return {name: group for name, group in folders.items() if len(older(group, age)) == len(group)}


def _runs_that_await() -> set[str]:
    """The runs whose challenger waits for a person: what becomes of their rows is still to be done."""
    asked = approvals.waits(warehouse(), settings().model_name)
    waiting = {one.run_id for one in open_batches.lives() if one.state is lifecycle.State.AWAITING}
    return waiting | {one.asked.dag_run_id for one in asked if one.answer is None}


def _unfinished_runs() -> list[str]:
    with create_session() as session:
        found = session.query(DagRun.dag_id, DagRun.run_id).filter(DagRun.state.in_(State.unfinished_dr_states))
        runs = found.filter(DagRun.dag_id.in_(ledger.TRAINING_DAGS)).all()
    return [name for dag_id, run_id in runs for name in (run_id, f"{dag_id} {run_id}")]  # etl_steps.staging_of
