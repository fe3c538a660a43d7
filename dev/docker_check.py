"""The Docker stack, from its build to a champion and through what happens to a laptop: ``make docker-check``."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import sqlalchemy as sa
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from dev import demo, sample_data
from dev.containers import AstroProject
from dev.docker import DockerStack
from dev.observe import OVER, PIPELINE, Observer
from dev.state import REPOSITORY

RESULT = REPOSITORY / ".local" / "docker-check.json"
HEALTHY_WITHIN = 300.0  # seconds
CHECKPOINT_WITHIN = 600.0
RUN_ENDS_WITHIN = 1800.0
SEARCH = "no secrets in the image"
UNPAUSED = {PIPELINE, "s3_upload_listener", "model_rollback"}


@dataclass(frozen=True)
class Trial:
    """One line of docker-check.json; ``faults`` is empty if all was as it should be."""

    name: str
    seconds: float
    faults: list[str]


class Check:
    """Tries one thing after the other on the stack of `astro dev start`."""

    def __init__(self, project: AstroProject, stories: int, console: Console) -> None:
        self.project, self.stories, self.console = project, stories, console
        self.stack: DockerStack

    def run(self) -> list[Trial]:
        """All trials, each building on those before: the first that fails ends them, unless it is the search."""
        trials: dict[str, Callable[[], Iterator[str]]] = {
            "build and start": self._start,
            SEARCH: lambda: iter(self.project.secrets_in_image()),
            "healthy, settings imported, DAGs on": self._is_ready,
            "uploads become models": self._stories,
            "stop and start lose nothing": self._restart,
            "scheduler killed in mid-training": self._crash,
        }
        done: list[Trial] = []
        for name, trial in trials.items():
            self.console.print(f"\n[bold]{name}[/]")
            begun = time.monotonic()
            try:
                faults = list(trial())
            except Exception as error:  # whatever a stack that is not as it should be makes its clients raise
                faults = [f"{type(error).__name__}: {error}"]
            done.append(Trial(name, round(time.monotonic() - begun, 1), faults))
            for fault in faults:
                self.console.print(f"  not as expected: {fault}", style="red", markup=False)
            if faults and name != SEARCH:
                break
        return done

    def _start(self) -> Iterator[str]:
        self.project.start()
        self.stack = DockerStack(self.project.airflow_port())
        if Observer(self.stack).champion():
            yield "this stack has a champion already; the check needs a fresh one: astro dev kill"

    def _is_ready(self) -> Iterator[str]:
        _wait(lambda: not list(self._unhealthy()), "healthy Airflow", HEALTHY_WITHIN)
        _wait(lambda: bool(self.stack.base_model()), "DAG of the pipeline", HEALTHY_WITHIN)
        self.stack.provide_base_model()
        for path in ("connections/aws_default", "connections/warehouse", "pools/gpu"):
            if self.stack.airflow.get(path).is_error:
                yield f"airflow_settings.yaml was not imported: no {path}"
        errors = self.stack.airflow.get("importErrors").raise_for_status().json()["import_errors"]
        yield from (f"{error['filename']}: {error['stack_trace']}" for error in errors)
        dags = self.stack.airflow.get("dags").raise_for_status().json()["dags"]
        unpaused = {dag["dag_id"] for dag in dags if not dag["is_paused"]}
        if not unpaused >= UNPAUSED:
            yield f"paused: {UNPAUSED - unpaused}"

    def _unhealthy(self) -> Iterator[str]:
        health = self.stack.airflow.get("health").raise_for_status().json()
        yield from (part for part in ("metadatabase", "scheduler", "triggerer") if health[part]["status"] != "healthy")

    def _stories(self) -> Iterator[str]:
        uploads = sample_data.uploads(sample_data.messages(sample_data.MADE_UP_ROWS))[: self.stories]
        told = demo.run(self.stack, uploads, self.console)
        yield from (f"{one['name']}: {one['outcome']}" for one in told["stories"] if not one["ok"])
        if not told["ok"]:
            yield f"rows: {told['rows']}"

    def _restart(self) -> Iterator[str]:
        before = self._all_there_is()
        self.project.stop()
        self.project.start()
        self.stack = DockerStack(self.project.airflow_port())
        _wait(lambda: not list(self._unhealthy()), "healthy Airflow", HEALTHY_WITHIN)
        after = self._all_there_is()
        for part in before:
            lost = before[part].items() - after[part].items()
            if lost:
                yield f"lost or changed of {part}: {sorted(lost)[:5]}"
        self.console.print("  kept: " + ", ".join(f"{len(there)} {part}" for part, there in before.items()))

    def _all_there_is(self) -> dict[str, dict[str, Any]]:
        """What a user would miss; each kind by name, with what says that it is the same."""
        observer, client = Observer(self.stack), MlflowClient(self.stack.mlflow_uri, self.stack.mlflow_uri)
        with observer.warehouse.connect() as connection:
            ledger = connection.execute(sa.text("SELECT seq, verb, version FROM promotion_ledger")).all()
        pages = [
            page
            for bucket in ("bert", "mlflow")
            for page in self.stack.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        ]
        objects = [(page["Name"], one) for page in pages for one in page.get("Contents", [])]
        versions = client.search_model_versions(f"name = '{observer.model}'")
        aliases: dict[str, Any] = client.get_registered_model(observer.model).aliases
        return {
            "objects in S3": {f"{bucket}/{one['Key']}": one["ETag"] for bucket, one in objects},
            "model versions": {one.version: one.source for one in versions},
            "aliases": aliases,
            "ledger entries": {row[0]: tuple(row) for row in ledger},
            "pipeline runs": dict(observer.runs()),
        }

    def _crash(self) -> Iterator[str]:
        observer = Observer(self.stack)
        jobs = set(observer.keys("jobs/"))
        conf = {"epochs": 8, "seed": 7}
        answer = self.stack.airflow.post(f"dags/{PIPELINE}/dagRuns", json={"conf": conf}).raise_for_status()
        run_id = answer.json()["dag_run_id"]

        def checkpoint() -> bool:
            if observer.run(run_id)["state"] in OVER:
                raise TimeoutError(f"{run_id} was over before its first checkpoint")
            return any(key.endswith("/complete.json") for key in set(observer.keys("jobs/")) - jobs)

        _wait(checkpoint, "checkpoint", CHECKPOINT_WITHIN)
        self.project.crash("scheduler")
        self.console.print("  killed the scheduler's container, which trains, after a checkpoint", markup=False)
        self.project.revive("scheduler")
        _wait(lambda: observer.run(run_id)["state"] in OVER, f"end of {run_id}", RUN_ENDS_WITHIN)
        report = observer.report(run_id)
        self.console.print(f"  {report['reason']}", markup=False, soft_wrap=True)
        if report["state"] != "success":
            yield f"{run_id} ended as {report['state']}"
            return
        result = json.loads(observer.read(f"jobs/{report['job_id']}/result.json"))
        self.console.print(f"  training went on from step {result['resumed_from_step']}")
        if not result["resumed_from_step"]:
            yield "training began anew in place of going on from its checkpoint"


def _wait(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Raises TimeoutError. An Airflow that does not answer counts as one that is not there yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        time.sleep(2)
    raise TimeoutError(f"no {what} within {seconds:.0f} s")


def check(project: AstroProject, stories: int, console: Console) -> int:
    """Runs all trials, writes docker-check.json, and leaves the stack running; returns the exit code."""
    RESULT.unlink(missing_ok=True)
    trials = Check(project, stories, console).run()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([asdict(trial) for trial in trials], indent=2, ensure_ascii=False))
    table = Table("trial", "seconds", "")
    for trial in trials:
        table.add_row(trial.name, f"{trial.seconds:.0f}", "[bold red]NOT OK[/]" if trial.faults else "[green]ok[/]")
    console.print()
    console.print(table)
    console.print(f"See {RESULT.relative_to(REPOSITORY)}. The stack is still up; `astro dev stop` stops it.")
    return 1 if any(trial.faults for trial in trials) else 0
