"""``preprocess`` of ``ml_pipeline_dag``: a DVC stage whose data, run-cache and lock file lie in the bucket.

Each try works in a folder of its own, so a killed worker leaves no lock of DVC's behind. What keeps two apart is a lock
in the warehouse, which is gone with the connection that holds it: of a killed process at once, of a machine that
vanished after two minutes.
"""
# Only imported inside tasks.

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from airflow.exceptions import AirflowException
from airflow.models import DagRun

from include import lake, objects
from include.datasets import stage
from include.datasets.intake import Plan
from include.orchestration import golden_rows, settling, sweeping
from include.orchestration.intake_steps import pinned_plan
from include.orchestration.warehouse import warehouse
from include.registry import ledger
from include.registry.code import PROJECT, code_hash

logger = logging.getLogger(__name__)

NAME, LOCK, LAST, REMOTE = "preprocess", "dvc.lock", "last.json", "remote"
KEEPALIVES = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 9}  # seconds, and tries
RAN = f"Running stage '{NAME}'"
SHOWN = 20  # lines of what DVC said, in an error

CONFIG = """[core]
    no_scm = true
    remote = lake
    analytics = false
    check_update = false
['remote "lake"']
    url = {url}
"""


def preprocess(dag_run: DagRun, validated: dict[str, Any]) -> dict[str, Any]:
    """Makes the run's dataset by ``dvc repro``; returns its id, URI and rows, and whether the stage had to run.

    Raises AirflowFailException if another run has its batches by now, AirflowException with what DVC said if it fails.
    """
    plan = pinned_plan(dag_run.run_id)
    settling.hold(plan)
    with one_at_a_time(plan.model_name), sweeping.no_datasets_deleted(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, plan, validated)
        ran = reproduce(folder, plan.model_name)
        manifest = stage.publish(folder)
        facts = {name: manifest[name] for name in ("dataset_id", "golden_origin")}
        objects.write_json(lake.staging(plan.run_id, "dataset.json"), facts)
        seen = {"datasets": [plan.parent_dataset_id, manifest["dataset_id"]], "run_id": plan.run_id}
        objects.write_json(lake.dvc(plan.model_name, LAST), seen)
    golden_rows.enter_corrections(plan)
    return {name: manifest[name] for name in ("dataset_id", "dataset_uri", "rows")} | {"ran": ran}


def _prepare(folder: Path, plan: Plan, validated: dict[str, Any]) -> None:
    """What the stage reads; the facts are pinned, so that a task that is cleared finds its own stage done."""
    pinned = lake.staging(plan.run_id, stage.FACTS)
    objects.create_json(pinned, stage.facts_of(plan, validated["accepted_hash"], code_hash()))
    objects.download_file(pinned, folder / stage.FACTS)
    objects.download_file(validated["accepted_uri"], folder / stage.ACCEPTED)
    (folder / stage.PLAN).write_text(plan.model_dump_json())


def reproduce(folder: Path, model_name: str) -> bool:
    """Runs ``dvc repro`` in a folder with the stage's inputs; whether it ran, or was found done.

    Run-cache and data are pushed to the bucket, and the lock file last, which refers to them.
    """
    remote, lock = lake.dvc(model_name, REMOTE).removeprefix("file://"), lake.dvc(model_name, LOCK)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(CONFIG.format(url=remote))
    shutil.copy(stage.DVC_YAML, folder / "dvc.yaml")
    if objects.exists(lock):
        objects.download_file(lock, folder / LOCK)
        try:
            _dvc(folder, "fetch", "--run-cache")
        except AirflowException as error:  # somebody has deleted some of it: made again, it is there again
            logger.warning("%s", error)
            (folder / LOCK).unlink()
            shutil.rmtree(folder / ".dvc" / "cache", ignore_errors=True)
    ran = RAN in _dvc(folder, "repro", "--pull", NAME)
    if ran or not objects.exists(lock) or objects.read_bytes(lock) != (folder / LOCK).read_bytes():
        _dvc(folder, "push", "--run-cache")
        objects.upload_file(folder / LOCK, lock)
    return ran


def _dvc(folder: Path, *arguments: str) -> str:
    """A DVC command in a folder, with nothing of the machine's; returns what it said."""
    variables = {
        "DVC_NO_ANALYTICS": "true",
        "DVC_SITE_CACHE_DIR": folder / ".site",
        "DVC_GLOBAL_CONFIG_DIR": folder / ".global",
        "DVC_SYSTEM_CONFIG_DIR": folder / ".system",
        "PYTHONPATH": PROJECT,
        "STAGE_PYTHON": sys.executable,
    }
    given = [f"{name}={value}" for name, value in variables.items()]
    command = ["env", *given, sys.executable, "-m", "dvc", *arguments]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                said.append(line.rstrip())
                logger.info("%s", said[-1])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise AirflowException(f"dvc {' '.join(arguments)} failed ({process.returncode}): {' | '.join(said[-SHOWN:])}")
    return "\n".join(said)


@contextmanager
def one_at_a_time(model_name: str) -> Iterator[None]:
    """Waits until nobody else is at the stage of a model, and keeps the others waiting while the block runs."""
    with ledger.exclusive(warehouse(), f"dvc {model_name}") as connection:
        for name, value in KEEPALIVES.items():
            connection.execute(sa.text(f"SET LOCAL {name} = {value}"))
        yield
