"""What a user can do with a stack that is up, and see of it."""

import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx
import pandas as pd
import sqlalchemy as sa

from dev import sample_data
from dev.observe import OVER, PIPELINE, Observer
from dev.stack import Stack


def wait(condition: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    """The first value of a condition that is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(1)
    raise TimeoutError(f"no {what} within {seconds:.0f} s")


@cache
def uploads() -> list[sample_data.Upload]:
    """The files of the demo's stories, as small as they can be."""
    return sample_data.uploads(sample_data.messages(640))


def messages(n: int, seed: int) -> pd.DataFrame:
    """n labelled messages that no other file of these stories has.

    None is of the label that is new in the last of the stories: after a rollback it is new again, and its rows wait.
    """
    rows = sample_data.messages(2 * n, seed)
    rows = rows[~rows["label"].isin(uploads()[-1].labels)].head(n).reset_index(drop=True)
    return rows.assign(text=[f"{text} (case {seed}-{at})" for at, text in enumerate(rows["text"])])


def csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False).encode()


class Story(Observer):
    """What a user can do with a stack, and see of it."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.stack = stack

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Drops a file and waits for the end of the run that it starts; returns the run's report."""
        known = set(self.runs())
        self.s3.put_object(Bucket=self.bucket, Key=f"incoming/{name}", Body=content)
        return self.report_of(self.new_run(known))

    def report_of(self, run_id: str) -> dict[str, Any]:
        """The report of a run, once that has ended well."""
        assert self.finish(run_id) == "success", self.run(run_id)["note"]
        return self.report(run_id)

    def finish(self, run_id: str, timeout: float = 600) -> str:
        return wait(lambda: (s := self.run(run_id)["state"]) in OVER and s, f"the end of {run_id}", timeout)

    def tasks(self, run_id: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.task_instances(run_id)}

    def clear(self, run_id: str, task_id: str, *, downstream: bool = True) -> None:
        """Clears a task, and all after it, as in the UI, and waits for the run's new end."""
        body = {
            "dry_run": False, "task_ids": [task_id], "dag_run_id": run_id, "only_failed": False,
            "include_downstream": downstream, "reset_dag_runs": True,
        }  # fmt: skip
        self.airflow.post(f"dags/{PIPELINE}/clearTaskInstances", json=body).raise_for_status()
        assert self.finish(run_id) == "success", self.tasks(run_id)

    def returned(self, run_id: str) -> dict[str, str]:
        """What each task of a run has handed on."""
        found = {}
        for task_id in self.tasks(run_id):
            path = f"dags/{PIPELINE}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
            answer = self.airflow.get(path)
            found |= {task_id: answer.json()["value"]} if answer.is_success else {}
        return found

    def trigger(self, **conf: Any) -> str:
        """Starts a run as Airflow's documentation of the REST API does."""
        answer = self.airflow.post(f"dags/{PIPELINE}/dagRuns", json={"conf": conf}).raise_for_status()
        return str(answer.json()["dag_run_id"])

    def note(self, run_id: str) -> str:
        return str(self.run(run_id)["note"])

    def read_json(self, key: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.read(key))
        return content

    def ledger(self) -> list[tuple[str, str]]:
        with self.warehouse.connect() as connection:
            rows = connection.execute(sa.text("SELECT verb, version FROM promotion_ledger ORDER BY seq")).all()
        return [(row[0], row[1]) for row in rows]

    def ask(self, text: str) -> dict[str, Any]:
        """The model server's answer to a text."""
        answer = httpx.post(f"{self.stack.serving_url}/predict", json={"texts": [text]}, timeout=60, trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def aliases(self) -> tuple[str | None, str | None]:
        return self.alias("champion"), self.alias("previous")
