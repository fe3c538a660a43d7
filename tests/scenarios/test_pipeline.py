"""Whole stories against a real Airflow, PostgreSQL, S3 server and MLflow, with a small BERT.

They go on from the stories of the demo, in order: each starts from what the ones before left.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dev import demo, sample_data
from dev.observe import PIPELINE
from dev.stack import Stack
from include.lake import slug
from tests.scenarios.small_bert import save_small_bert
from tests.scenarios.story import Story, csv, messages, wait

pytestmark = pytest.mark.timeout(2400)  # the stories are told by a fixture, in minutes

TASKS = ["validate_data", "load_rows", "preprocess_data", "train_model", "evaluate_model", "upload_model"]


@pytest.fixture(scope="module")
def reports(story: Story, told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each story's run.json."""
    return {told_one["name"]: story.report(told_one["run_id"]) for told_one in told["stories"]}


def test_the_stories_end_as_they_should(told: dict[str, Any]) -> None:
    assert told["ok"], told
    assert [(one["name"], one["ok"]) for one in told["stories"]] == [(name, True) for name in demo.EXPECTED]
    rows = told["rows"]
    assert rows["in"] == rows["used"] + rows["rejected"] + rows["waiting"]
    assert all(one["upload_to_run_seconds"] < 60 for one in told["stories"]), "seconds, not a poke interval of minutes"


def test_the_champion_is_registered_with_its_files_and_the_run_says_so(story: Story, reports: dict[str, Any]) -> None:
    report = reports["good file"]
    assert report["files"][0]["key"] == "incoming/team a/good ü+1.csv"
    assert all(gate["passed"] for gate in report["gates"])
    files = set(story.keys("models/bert-classifier/1/"))
    assert {f"models/bert-classifier/1/{name}" for name in ("model.safetensors", "README.md", "MLmodel")} <= files
    assert "**promoted**" in story.note(report["run_id"])
    assert report["links"]["report"] in story.note(report["run_id"])
    assert story.keys("incoming/") == []


def test_the_challenger_learns_from_the_champions_rows_and_the_new_ones(story: Story, reports: dict[str, Any]) -> None:
    first, second = reports["good file"], reports["second good file"]
    assert second["parent_dataset_id"] == first["dataset_id"]
    before, after = (story.read_json(f"datasets/{report['dataset_id']}/manifest.json") for report in (first, second))
    assert sum(after["rows"].values()) == sum(before["rows"].values()) + after["new_rows"]
    assert 0 < after["new_rows"] < second["rows"]["used"], "some of the new rows are golden"


def test_a_challenger_and_its_champion_answer_the_same_rows(story: Story, reports: dict[str, Any]) -> None:
    for name in ("second good file", "swapped labels"):
        run = story.run(reports[name]["run_id"])["dag_run_id"]
        key = next(key for key in story.keys("reports/") if slug(run) in key and key.endswith("evaluation.json"))
        evaluation = story.read_json(key)
        rows = evaluation["golden_rows"]
        assert key.replace("evaluation.json", "answers.parquet") in story.keys("reports/"), "kept by golden row"
        for model in ("challenger", "champion"):
            assert sum(one["support"] for one in evaluation[model]["metrics"]["classes"]) == rows


def test_nothing_is_trained_on_a_file_that_is_no_table(story: Story, reports: dict[str, Any]) -> None:
    report = reports["no table"]
    assert report["rows"] == {"in": 1, "used": 0, "rejected": 1, "waiting": 0}
    assert story.tasks(report["run_id"])["train_model"] == "skipped"
    (key,) = [key for key in story.keys("quarantine/") if key.endswith("report 100%.csv")]
    assert story.read_json(f"{key}.reason.json")["reason"].endswith("a PDF")


def test_the_report_can_be_opened_from_mlflow(story: Story, reports: dict[str, Any]) -> None:
    run_id = reports["swapped labels"]["mlflow_run_id"]
    artifact = httpx.get(
        f"{story.stack.mlflow_uri}/get-artifact", params={"path": "report/report.html", "run_uuid": run_id}, timeout=60
    )
    assert artifact.status_code == 200
    assert "non_inferiority" in artifact.text


def handed_on(story: Story, run_id: str) -> tuple[Any, ...]:
    """What a run has left: all that a repetition of it must not change."""
    return story.returned(run_id), story.aliases(), story.ledger(), story.keys("models/")


def test_a_run_that_is_cleared_and_repeated_changes_nothing(story: Story, reports: dict[str, Any]) -> None:
    before = reports["second good file"]
    run_id = before["run_id"]
    was = handed_on(story, run_id)
    assert was[0].keys() >= set(TASKS)
    story.clear(run_id, TASKS[0])  # and all after it
    assert story.report_of(run_id) == before
    assert handed_on(story, run_id) == was


@pytest.mark.nightly
def test_any_task_that_is_cleared_and_repeated_alone_changes_nothing(story: Story, reports: dict[str, Any]) -> None:
    before = reports["second good file"]
    run_id = before["run_id"]
    was = handed_on(story, run_id)
    for task_id in TASKS[1:]:  # what a task hands on decides all after it
        story.clear(run_id, task_id, downstream=False)
        assert story.report_of(run_id) == before, task_id
        assert handed_on(story, run_id) == was, task_id


def test_a_rollback_brings_the_previous_champion_back_and_sets_the_upload_aside_that_it_leaves(
    story: Story, reports: dict[str, Any]
) -> None:
    champion, previous = story.aliases()
    (left,) = next(report for report in reports.values() if report.get("model_version") == champion)["batches"]
    command = [sys.executable, "-m", "include.orchestration.rollback", "--reason", "customers complain"]
    done = subprocess.run(command, env=story.stack.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "golden rows right" in done.stdout
    assert story.aliases() == (previous, champion)
    assert story.ledger()[-1] == ("rollback", previous)
    answer = wait(lambda: (said := story.ask("my card was stolen"))["version"] == previous and said, "its answer")
    logged = wait(lambda: story.keys("predictions/bert-classifier/"), "the answer in the log")
    day, said = logged[-1].split("date=")[1].split("/")[0], answer["predictions"][0]
    assert said["id"].startswith(day.replace("-", ""))
    entry = story.read_json(story.keys(f"claims/{left}/life/")[-1])
    assert (entry["state"], entry["who"]) == ("set aside", "rollback")


@pytest.mark.nightly
def test_a_run_started_over_rest_trains_on_the_file_it_names_though_it_is_killed_and_has_no_pool(
    story: Story, tmp_path: Path
) -> None:
    story.airflow.delete("pools/gpu").raise_for_status()
    story.s3.put_object(Bucket="bert", Key="mine/some file.csv", Body=csv(messages(50, seed=5)))
    # Another base model than the deployment's, and long enough to be killed.
    (tmp_path / "deeper").mkdir()
    deeper = save_small_bert(tmp_path / "deeper", sample_data.messages(640)["text"].tolist(), layers=3)
    named = {"base_model": str(deeper), "learning_rate": 1e-3, "epochs": 3}
    jobs = {key.split("/")[1] for key in story.keys("jobs/")}
    run_id = story.trigger(dataset_uri="s3://bert/mine/", **named)
    trainer = wait(lambda: find_trainer(story.stack), "trainer", 240)
    (job_id,) = {key.split("/")[1] for key in story.keys("jobs/")} - jobs
    checkpoints = f"jobs/{job_id}/checkpoints/"
    wait(lambda: any(key.endswith("/complete.json") for key in story.keys(checkpoints)), "checkpoint", 240)
    os.kill(trainer.pid, signal.SIGKILL)
    report = story.report_of(run_id)
    assert story.read_json(f"jobs/{report['job_id']}/result.json")["resumed_from_step"] > 0
    assert report["rows"]["used"] == 50
    config = story.read_json(f"models/bert-classifier/{report['model_version']}/config.json")
    assert config["encoder_config"]["num_hidden_layers"] == 3
    assert story.airflow.get("pools/gpu").raise_for_status().json()["slots"] == 1
    assert story.keys("mine/") == ["mine/some file.csv"], "files named by URI stay where they are"


def find_trainer(stack: Stack) -> psutil.Process | None:
    """The trainer's process of this stack, not of another one on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("AIRFLOW_HOME") == str(stack.state.airflow_home)
            # One argument or many: a process that gives itself a title has it in one.
            if ours and "include.training" in " ".join(process.info["cmdline"] or []):
                return process
    return None


def test_a_wrong_parameter_is_refused_over_rest(story: Story) -> None:
    answer = story.airflow.post(f"dags/{PIPELINE}/dagRuns", json={"conf": {"epochs": 0}})
    assert answer.status_code == 400
    assert "epochs" in answer.text


def test_a_run_that_waits_for_its_data_holds_nobody_up_and_a_misspelt_parameter_fails_at_once(story: Story) -> None:
    waiting, misspelt = story.trigger(dataset_uri="s3://bert/nowhere/"), story.trigger(epoch=1)
    assert story.finish(misspelt) == "failed"
    assert "'epoch' (did you mean 'epochs'?)" in story.note(misspelt)
    assert story.run(waiting)["state"] == "running"
    story.airflow.patch(f"dags/{PIPELINE}/dagRuns/{waiting}", json={"state": "failed"}).raise_for_status()
