"""Several processes train one job together: here two on the CPU, on a machine with GPUs one for each."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from include import objects
from include.training import train
from include.training.job import Job, Result
from include.training.stopping import StopRequest
from tests.unit.training_models import CONFIGS, job, rows, save_dataset, save_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout: each process draws masks of its own."""
    folder = tmp_path_factory.mktemp("base")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = type(CONFIGS["bert"])(**CONFIGS["bert"].to_dict() | no_dropout)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def dataset_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    # Evaluation batches do not come out even: the rows that fill the last one up must not count.
    return save_dataset(tmp_path_factory.mktemp("data"), rows(96), rows(75, seed=1))


def _start(wanted: Job, folder: Path) -> subprocess.Popen[str]:
    """Two processes."""
    uri = f"file://{folder}/jobs/{wanted.job_id}/job.json"
    objects.write_bytes(uri, wanted.model_dump_json().encode())
    return subprocess.Popen(
        [sys.executable, "-m", "include.training", uri, "--processes", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _train_alone(wanted: Job, folder: Path) -> None:
    """As one process does it: this one, which has imported all already."""
    train.run(wanted, f"file://{folder}/jobs/{wanted.job_id}", StopRequest())


def _result(wanted: Job, folder: Path) -> Result:
    return Result.model_validate(objects.read_json(f"file://{folder}/jobs/{wanted.job_id}/result.json"))


def test_two_processes_have_the_loss_curve_of_one(
    base: Path, dataset_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_BUCKET", f"file://{base.parent}")  # from where base models are downloaded
    wanted = job(dataset_uri, f"file://{base}", f"sqlite:///{tmp_path}/mlflow.db")
    _train_alone(wanted, tmp_path / "alone")
    run = _start(wanted, tmp_path / "together")
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert output.count("result.json") == 1
    assert output.count("downloading base model") == 1, "the first process does it for all"
    one, two = (_result(wanted, tmp_path / name) for name in ("alone", "together"))
    assert [one.extra["processes"], two.extra["processes"]] == [1, 2]
    for alone, together in zip(one.history, two.history, strict=True):
        assert together == pytest.approx(alone, abs=2e-3)


@pytest.mark.nightly
def test_asked_to_stop_both_do_and_one_alone_can_go_on(base: Path, dataset_uri: str, tmp_path: Path) -> None:
    wanted = job(dataset_uri, base, f"sqlite:///{tmp_path}/mlflow.db", epochs=30, early_stopping_patience=0)
    run = _start(wanted, tmp_path)
    seen = []
    assert run.stdout is not None
    for line in run.stdout:
        seen.append(line)
        if "step 1/" in line:
            break
    time.sleep(0.5)
    run.terminate()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 143, "".join(seen) + output
    assert not objects.exists(f"file://{tmp_path}/jobs/{wanted.job_id}/result.json")
    # The next machine may have fewer GPUs.
    _train_alone(wanted, tmp_path)
    assert _result(wanted, tmp_path).resumed_from_step > 0


@pytest.mark.nightly
def test_what_cannot_be_trained_ends_all_with_the_reason(base: Path, dataset_uri: str, tmp_path: Path) -> None:
    wanted = job(dataset_uri, base, f"sqlite:///{tmp_path}/mlflow.db", batch_size=9)
    run = _start(wanted, tmp_path)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 1
    assert "ERROR batch_size 9 cannot be shared evenly by 2 processes" in output.rstrip().splitlines()[-1]
