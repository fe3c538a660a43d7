"""The life of uploads in a whole stack: what a pause, a failure, a rollback or a repetition does to them.

What needs no Airflow is in test_claims.py and test_batch_lives.py.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa

from dev.observe import OVER, PIPELINE
from include.orchestration.handover import table_name
from tests.scenarios.story import Story, csv, messages, wait

pytestmark = pytest.mark.timeout(2400)  # the stack is started and its stories are told by a fixture, in minutes


def drop(story: Story, name: str, content: bytes) -> None:
    story.s3.put_object(Bucket=story.bucket, Key=f"incoming/{name}", Body=content)


def batch_of(story: Story, name: str) -> str:
    """The batch that has a file, once that is claimed."""

    def found() -> str | None:
        manifests = [key for key in story.keys("claims/") if key.count("/") == 2 and key.endswith("/manifest.json")]
        for key in reversed(manifests):
            if any(file["key"] == f"incoming/{name}" for file in story.read_json(key)["files"]):
                return key.split("/")[1]
        return None

    return str(wait(found, f"batch of {name}"))


def lives(story: Story, batch_id: str) -> list[dict[str, Any]]:
    """A batch's entries, the first first."""
    return [story.read_json(key) for key in story.keys(f"claims/{batch_id}/life/")]


def states(story: Story, batch_id: str) -> list[str]:
    return [entry["state"] for entry in lives(story, batch_id)]


def end_of(story: Story, batch_id: str) -> dict[str, Any]:
    """A batch's last entry, once a run has settled it."""

    def settled() -> dict[str, Any] | None:
        last = (lives(story, batch_id) or [{"state": "claimed"}])[-1]
        settled = last["state"] in ("used", "set aside", "quarantined") or last.get("because") == "waits"
        return last if settled else None

    return wait(settled, f"end of {batch_id}", 600)


def pause(story: Story, paused: bool) -> None:
    story.airflow.patch(f"dags/{PIPELINE}", json={"is_paused": paused}).raise_for_status()


def idle(story: Story) -> None:
    wait(lambda: all(story.run(run_id)["state"] in OVER for run_id in story.runs()), "end of all runs", 600)


@contextmanager
def s3_fails(story: Story) -> Iterator[None]:
    """As long as the block runs, S3 answers with errors."""
    faults = story.stack.state.s3_faults
    faults.touch()
    try:
        yield
    finally:
        faults.unlink()


@contextmanager
def no_training(story: Story) -> Iterator[None]:
    """As long as the block runs, a run that gets to its training waits there."""
    story.airflow.patch("pools/gpu", json={"name": "gpu", "slots": 0}).raise_for_status()
    try:
        yield
    finally:
        story.airflow.patch("pools/gpu", json={"name": "gpu", "slots": 1}).raise_for_status()


def in_training(story: Story, batch_id: str) -> str:
    """The run that has a batch and has come as far as its training."""

    def found() -> str | None:
        last = (lives(story, batch_id) or [{}])[-1]
        run_id = last.get("run_id") if last.get("state") == "taken" else None
        done = run_id and story.tasks(run_id).get("preprocess_data") == "success"
        return str(run_id) if done else None

    return str(wait(found, f"run on {batch_id} that is about to train"))


def roll_back(story: Story, replaces: str | None, to: str | None) -> None:
    versions = ["--replaces", str(replaces), "--to", str(to)]
    command = [sys.executable, "-m", "include.orchestration.rollback", "--reason", "customers complain", *versions]
    done = subprocess.run(command, env=story.stack.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def swapped_run(told: dict[str, Any]) -> str:
    """The run of the story whose challenger is shown worse."""
    return str(next(one["run_id"] for one in told["stories"] if one["name"] == "swapped labels"))


def test_the_stories_uploads_have_ended_and_the_table_says_how(story: Story, told: dict[str, Any]) -> None:
    idle(story)
    (batch_id,) = story.report(swapped_run(told))["batches"]
    assert end_of(story, batch_id)["state"] == "set aside"
    for key in story.keys("claims/open/"):
        assert end_of(story, key.split("/")[-1])["because"] == "waits", "no other is open when nothing runs"
    with story.warehouse.connect() as connection:
        table = dict(connection.execute(sa.text("SELECT batch_id, state FROM upload_batches")).all())
        tables = {row[0] for row in connection.execute(sa.text("SELECT tablename FROM pg_tables"))}
    assert set(table.values()) >= {"used", "set aside", "quarantined"}
    assert not tables & {table_name(one["run_id"]) for one in told["stories"]}, "each run drops its table"


@pytest.mark.nightly
def test_what_comes_while_the_pipeline_is_paused_is_used_when_it_is_not_whatever_s3_does(
    story: Story, told: dict[str, Any]
) -> None:
    """An upload, and rows that were set aside and are taken back; S3 fails during their run."""
    idle(story)
    known = set(story.runs())
    swapped = swapped_run(told)
    (readmitted,) = story.report(swapped)["batches"]
    before = end_of(story, readmitted)
    pause(story, True)
    try:
        drop(story, "paused.csv", csv(messages(60, seed=101)))
        batch_id = batch_of(story, "paused.csv")
        command = [sys.executable, "-m", "dev", "readmit", "--state", str(story.stack.state.folder), "--", swapped]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        time.sleep(22)  # longer than until the next look
        assert set(story.runs()) == known, "no runs pile up"
        assert "told" not in states(story, batch_id)
    finally:
        pause(story, False)
    run_id = story.new_run(known)
    with s3_fails(story), suppress(TimeoutError):
        wait(lambda: "up_for_retry" in story.tasks(run_id).values(), "task that has failed", 30)
    report = story.report_of(run_id)
    assert sorted(report["batches"]) == sorted([batch_id, readmitted])
    used = {file["key"]: file["used"] for file in report["files"]}
    assert used["incoming/paused.csv"] == 60
    assert sum(used.values()) == report["rows"]["used"] > 60
    assert report["outcome"] in ("promoted", "rejected")
    assert (end_of(story, batch_id)["run_id"], end_of(story, readmitted)["run_id"]) == (run_id, run_id)
    assert states(story, batch_id)[:2] == ["told", "taken"]
    assert states(story, readmitted)[before["number"] :][:3] == ["released", "told", "taken"]


@pytest.mark.nightly
def test_a_run_that_fails_and_one_whose_champion_is_rolled_back_meanwhile_leave_their_upload_to_the_next(
    story: Story,
) -> None:
    idle(story)
    champion, previous = story.aliases()
    with no_training(story):
        drop(story, "moved.csv", csv(messages(60, seed=103)))
        batch_id = batch_of(story, "moved.csv")
        failed = in_training(story, batch_id)
        story.airflow.patch(f"dags/{PIPELINE}/dagRuns/{failed}", json={"state": "failed"}).raise_for_status()
        wait(lambda: "released" in states(story, batch_id), "release")
        superseded = in_training(story, batch_id)
        roll_back(story, champion, previous)
    assert superseded != failed
    assert story.report_of(superseded)["outcome"] == "superseded"
    assert story.aliases() == (previous, champion)
    report = story.report_of(end_of(story, batch_id)["run_id"])
    assert report["run_id"] not in (failed, superseded)
    assert states(story, batch_id)[:8] == ["told", "taken", "released"] * 2 + ["told", "taken"]
    assert report["parent_dataset_id"] == story.mlflow.get_model_version(story.model, str(previous)).tags["dataset_id"]
    assert report["rows"]["used"] == 60


@pytest.mark.nightly
def test_a_run_that_is_cleared_after_another_run_builds_its_own_dataset_again(story: Story) -> None:
    idle(story)
    run_id = end_of(story, batch_of(story, "paused.csv"))["run_id"]
    before = story.report_of(run_id)
    state = (story.aliases(), story.ledger())
    story.clear(run_id, "preprocess_data")
    assert story.report_of(run_id) == before
    assert (story.aliases(), story.ledger()) == state
