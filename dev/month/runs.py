"""What runs inside Airflow's and the core's own code, each in a process of its own on the month's clock.

A process is forked from this one, which has Airflow imported and has computed nothing: so a run costs no start of
Python, and torch, whose threads do not survive a fork, begins anew in each. Airflow runs a DAG by ``dag.test``: real
database, real tasks in the order of their edges, sensors with their triggers; no scheduler in between, which would need
a real week for a week. What it says goes to ``month.log``, its last line to the caller.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from dev.month.clock import follow
from dev.state import REPOSITORY

DAGS = REPOSITORY / "dags"
STOP_SECONDS = 10.0
TRIGGERED = ("model_retraining_dag", "watch_champion")


class RunFailed(RuntimeError):
    """A process of the month ended with an error; the log has it."""


class Runs:
    """Runs things on the month's clock.

    Args:
        environment: of the stack; it becomes this process's.
        clock: the file to follow.
        log: where all is written that runs say.
    """

    def __init__(self, environment: Mapping[str, str], clock: Path, log: IO[str]) -> None:
        os.environ.update(environment)
        # Airflow and the project read the environment when they are imported; then all that is heavy, once.
        import airflow.models
        import airflow.providers.fab.auth_manager.models  # noqa: F401 - whom a run's note refers to
        import astro.sql  # noqa: F401
        import evidently.metrics  # noqa: F401
        import transformers  # noqa: F401

        from include.orchestration import arrivals, promotion_steps, validating  # noqa: F401

        logging.getLogger().setLevel(logging.WARNING)  # Airflow tells of each request
        self.clock, self.log = clock, log

    def dag(self, dag_id: str, at: datetime, **conf: Any) -> dict[str, Any]:
        """Runs a DAG of a logical date to its end; its state, those of its tasks, its run.json if it left one."""
        return self._run(dag_id, partial(_run_dag, dag_id, at, conf))

    def triggered(self, dag_id: str) -> dict[str, Any] | None:
        """Runs what another run has triggered; None if nothing was."""
        found = self._run("triggered", partial(_triggered, dag_id))
        return self.dag(dag_id, datetime.fromisoformat(found["at"]), **found["conf"]) if found else None

    def make_known(self) -> None:
        """Enters the DAGs that others trigger in Airflow's database, as a scheduler does."""
        self._run("make known", _make_known)

    def core(self, day: date, now: datetime) -> dict[str, Any]:
        """The day's checks, enters them, and returns what they say of accuracy and drift; no Airflow in it."""
        from dev.month.core import check_day

        return self._run("core", partial(check_day, day, now))

    def force_bad_champion(self) -> str:
        """Makes a model that mixes all labels up the champion, as a person can; its version."""
        return str(self._run("force", _force_bad_champion)["version"])

    def _run(self, name: str, main: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from include.orchestration.forked import ForkedProcess

        def whole() -> int:
            follow(self.clock)
            told = main()
            print(json.dumps(told, default=str))
            return 0

        self.log.write(f"\n===== {name}\n")
        process = ForkedProcess(f"month {name}", whole)
        try:
            code, line = process.run(self._write)
        except BaseException:  # Ctrl-C, which a process of a session of its own does not hear
            process.stop(STOP_SECONDS)
            raise
        if code:
            raise RunFailed(f"{name} ended with exit code {code}: {line}; see {self.log.name}")
        found: dict[str, Any] = json.loads(line)
        return found

    def _write(self, line: str) -> None:
        self.log.write(f"{line}\n")
        self.log.flush()


def _bag(dag_id: str) -> Any:
    from airflow.models import DagBag

    bag = DagBag(DAGS / f"{dag_id}.py", include_examples=False)
    if bag.import_errors:
        raise RunFailed(f"{bag.import_errors}")
    return bag


def _run_dag(dag_id: str, at: datetime, conf: dict[str, Any]) -> dict[str, Any]:
    from include import lake, objects

    dag = _bag(dag_id).dags[dag_id]
    for task in dag.tasks:
        getattr(task, "partial_kwargs", task.__dict__)["retries"] = 0  # of a mapped one
    done = dag.test(at, run_conf=conf)
    uri = lake.report(dag_id, done.run_id, "run.json")
    return {
        "dag_id": dag_id,
        "run_id": done.run_id,
        "state": str(done.state),
        "tasks": {task.task_id: str(task.state) for task in done.get_task_instances()},
        "report": objects.read_json(uri) if objects.exists(uri) else {},
    }


def _triggered(dag_id: str) -> dict[str, Any]:
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, state="queued").order_by(DagRun.id.desc()).first()
        return {"at": run.logical_date.isoformat(), "conf": run.conf or {}} if run else {}


def _make_known() -> dict[str, Any]:
    for dag_id in TRIGGERED:
        _bag(dag_id).sync_to_db()
    return {}


def _force_bad_champion() -> dict[str, Any]:
    """The champion's own weights, but each label's are another's."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from include import lake, objects
    from include.orchestration import watching
    from include.orchestration.warehouse import warehouse
    from include.registry import models, promotion
    from include.registry.ledger import Entry
    from include.settings import settings

    engine, name = warehouse(), settings().model_name
    champion = models.by_alias(name, models.CHAMPION)
    assert champion is not None
    with objects.local(champion.uri) as files, tempfile.TemporaryDirectory() as folder:
        made = Path(shutil.copytree(files, Path(folder) / "model"))
        weights = load_file(made / "model.safetensors")
        mixed = {key: np.roll(value, 1, axis=0) if key.startswith("classifier.") else value
                 for key, value in weights.items()}  # fmt: skip
        save_file(mixed, made / "model.safetensors", metadata={"format": "pt"})
        uri = objects.upload(made, lake.job("0" * 16, "model"))
    tags = {"job_id": "0" * 16, "dataset_id": champion.tags["dataset_id"]}
    version = models.register(name, uri, "", tags)
    entry = Entry(
        model_name=name, verb="promote", version=version, previous_champion=champion.version, gates=[],
        actor="person:somebody", reason="it looked good on my laptop", dag_run_id="by hand",
        dataset_id=tags["dataset_id"], job_id=tags["job_id"],
    )  # fmt: skip
    promotion.promote(entry, engine)
    watching.begin(name, version, engine, dag_id="somebody's hand")
    return {"version": version}
