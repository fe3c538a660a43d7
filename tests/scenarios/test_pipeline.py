"""Whole stories against a real Airflow, PostgreSQL, S3 server and MLflow, with a real BERT.

The tests of this file share one stack and tell one story in order: each starts from what the ones before left.
"""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import sqlalchemy as sa

from dev.observe import OVER, PIPELINE, Observer
from dev.stack import Stack

TASKS = ["validate_data", "load_rows", "preprocess_data", "train_model", "evaluate_model", "upload_model"]
PHRASES = {
    "card_lost": ["I lost my card", "my card is gone", "someone took my card", "I cannot find my bank card"],
    "refund": ["I want my money back", "please refund me", "when is my refund due", "refund the payment"],
    "delivery": ["my parcel is late", "where is my delivery", "the package never came", "when will it be delivered"],
}


def messages(n: int, seed: int) -> pd.DataFrame:
    """n different labelled messages; other seeds give other texts."""
    rng = random.Random(seed)
    labels = [rng.choice(sorted(PHRASES)) for _ in range(n)]
    texts = [f"{rng.choice(PHRASES[label])} since day {seed}-{at}" for at, label in enumerate(labels)]
    return pd.DataFrame({"text": texts, "label": labels})


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

    def clear(self, run_id: str, task_id: str) -> None:
        """Clears a task and all after it, as in the UI, and waits for the run's new end."""
        body = {
            "dry_run": False, "task_ids": [task_id], "dag_run_id": run_id, "only_failed": False,
            "include_downstream": True, "reset_dag_runs": True,
        }  # fmt: skip
        self.airflow.post(f"dags/{PIPELINE}/clearTaskInstances", json=body).raise_for_status()
        assert self.finish(run_id) == "success", self.tasks(run_id)

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

    def aliases(self) -> tuple[str | None, str | None]:
        return self.alias("champion"), self.alias("previous")


def wait(condition: Callable[[], Any], what: str, timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(1)
    raise TimeoutError(f"no {what} within {timeout:.0f} s")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    overrides = {"BERT_EPOCHS": "2", "BERT_LEARNING_RATE": "2e-4", "BERT_UPLOAD_SETTLE_SECONDS": "0"}
    with Stack(tmp_path_factory.mktemp("stack"), overrides).running() as stack:
        yield Story(stack)


def csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def test_a_first_good_file_becomes_the_champion(story: Story) -> None:
    report = story.upload("team a/good ü+1 100%.csv", csv(messages(300, seed=1)))
    assert report["outcome"] == "promoted"
    assert report["rows"] == {"in": 300, "used": 300, "rejected": 0, "waiting": 0}
    assert report["files"][0]["key"] == "incoming/team a/good ü+1 100%.csv"
    assert all(gate["passed"] for gate in report["gates"])
    assert story.alias("champion") == "1"
    assert {"models/bert-classifier/1/model.safetensors", "models/bert-classifier/1/README.md"} <= set(
        story.keys("models/bert-classifier/1/")
    )
    assert "**promoted**" in story.note(report["run_id"])
    assert report["links"]["report"] in story.note(report["run_id"])
    assert story.keys("incoming/") == []


def test_a_second_good_file_is_trained_with_the_first_and_compared_on_the_same_rows(story: Story) -> None:
    first = story.read_json(f"datasets/{story.keys('datasets/')[0].split('/')[1]}/manifest.json")
    buffer = io.BytesIO()
    messages(100, seed=2).to_parquet(buffer)
    report = story.upload("second.parquet", buffer.getvalue())
    assert report["outcome"] == "promoted"
    assert report["parent_dataset_id"] == first["dataset_id"]
    manifest = story.read_json(f"datasets/{report['dataset_id']}/manifest.json")
    assert sum(manifest["rows"].values()) == sum(first["rows"].values()) + 100
    assert [gate["name"] for gate in report["gates"]] == ["accuracy_floor", "non_inferiority", "class_recall"]
    assert story.aliases() == ("2", "1")
    assert report["links"]["report"].startswith(story.stack.mlflow_uri)


def test_a_file_that_is_no_table_is_quarantined_and_its_run_ends_well(story: Story) -> None:
    report = story.upload("scan.csv", b"%PDF-1.7 this is no table")
    assert report["outcome"] == "nothing_to_train"
    assert report["rows"] == {"in": 1, "used": 0, "rejected": 1, "waiting": 0}
    (key,) = [key for key in story.keys("quarantine/") if key.endswith("scan.csv")]
    assert story.read_json(f"{key}.reason.json")["reason"].endswith("a PDF")
    assert story.tasks(report["run_id"])["train_model"] == "skipped"
    assert story.alias("champion") == "2"


def test_bad_rows_are_quarantined_and_good_ones_used(story: Story) -> None:
    good = messages(40, seed=3)
    lines = csv(good)
    lines += b",refund\nno label here,\nstrange,not_a_label\n" + lines.splitlines()[1] + b"\ncaf\xe9,refund\n"
    lines += b"both ways,refund\nBoth ways,delivery\n" + b"x" * 1_000_000 + b",refund\n"
    report = story.upload("bad rows.csv", lines)
    assert report["files"][0]["by_rule"] == {
        "contradictory_label": 2, "duplicate": 1, "label_missing": 1, "label_unknown": 1, "text_empty": 1,
        "text_too_long": 1, "wrong_encoding": 1,
    }  # fmt: skip
    assert report["rows"] == {"in": 48, "used": 40, "rejected": 8, "waiting": 0}
    rejected = story.rejected_rows(report)
    assert list(rejected["row"]) == list(range(41, 49))
    assert (rejected["reason"] != "").all()


def test_shuffled_labels_are_rejected_and_the_champion_stays(story: Story) -> None:
    champion = story.alias("champion")
    known = pd.concat([messages(300, seed=1), messages(100, seed=2)])
    shuffled = known.assign(label=known["label"].sample(frac=1, random_state=0).to_numpy())
    report = story.upload("shuffled.csv", csv(shuffled))
    assert report["outcome"] == "rejected"
    assert report["rows"]["in"] == sum(report["rows"][part] for part in ("used", "rejected", "waiting"))
    assert story.alias("champion") == champion
    assert story.ledger()[-1][0] == "reject"


def test_a_run_that_is_cleared_and_repeated_at_any_task_changes_nothing(story: Story) -> None:
    run_id = sorted(run for run, state in story.runs().items() if state == "success")[1]
    before = story.report_of(run_id)
    assert before["outcome"] == "promoted"
    state = (story.aliases(), story.ledger(), story.keys("models/"))
    for task_id in TASKS:
        story.clear(run_id, task_id)
        assert story.report_of(run_id) == before, task_id
        assert (story.aliases(), story.ledger(), story.keys("models/")) == state


def test_a_rollback_brings_the_previous_champion_back(story: Story) -> None:
    champion, previous = story.aliases()
    command = [sys.executable, "-m", "include.orchestration.rollback", "--reason", "customers complain"]
    done = subprocess.run(command, env=story.stack.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert story.aliases() == (previous, champion)
    assert story.ledger()[-1] == ("rollback", previous)


def test_training_that_is_killed_goes_on_from_its_checkpoint(story: Story) -> None:
    run_id = story.trigger(epochs=6, seed=7)
    trainer = wait(lambda: find_trainer(story.stack), "trainer", 240)
    job_id = next(part.split("/")[-2] for part in trainer.cmdline() if part.endswith("job.json"))
    wait(lambda: story.keys(f"jobs/{job_id}/checkpoints/"), "checkpoint", 240)
    os.kill(trainer.pid, signal.SIGKILL)
    report = story.report_of(run_id)
    assert story.read_json(f"jobs/{report['job_id']}/result.json")["resumed_from_step"] > 0


def find_trainer(stack: Stack) -> psutil.Process | None:
    """The trainer's process of this stack, not of another one on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("AIRFLOW_HOME") == str(stack.state.airflow_home)
            if ours and "include.training" in (process.info["cmdline"] or []):
                return process
    return None


def test_an_outage_of_s3_delays_a_run_and_loses_nothing(story: Story) -> None:
    faults: Path = story.stack.state.s3_faults
    known = set(story.runs())
    story.s3.put_object(Bucket="bert", Key="incoming/outage.csv", Body=csv(messages(60, seed=4)))
    run_id = story.new_run(known)
    faults.touch()
    try:
        time.sleep(30)
    finally:
        faults.unlink()
    report = story.report_of(run_id)
    assert report["rows"] == {"in": 60, "used": 60, "rejected": 0, "waiting": 0}
    assert report["outcome"] in ("promoted", "rejected")


def test_a_run_started_over_rest_trains_on_the_file_it_names(story: Story) -> None:
    story.s3.put_object(Bucket="bert", Key="mine/some file.csv", Body=csv(messages(50, seed=5)))
    report = story.report_of(story.trigger(dataset_uri="s3://bert/mine/", epochs=1))
    assert report["rows"]["used"] == 50
    assert story.keys("mine/") == ["mine/some file.csv"], "files named by URI stay where they are"


def test_a_run_for_data_that_is_wrong_says_so_in_its_note(story: Story) -> None:
    answer = story.airflow.post(f"dags/{PIPELINE}/dagRuns", json={"conf": {"epochs": 0}})
    assert answer.status_code == 400
    assert "epochs" in answer.text
