"""What a job's id says, and which job a run's task gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from mlflow import MlflowClient

from include import lake, objects
from include.orchestration import submission
from include.settings import settings
from include.training import provenance
from include.training.job import Hyperparameters, Job
from tests.unit.training_models import job

# As an earlier release has written it.
OLD = {
    "dataset_uri": "s3://bert/datasets/d1/",
    "model_name": "support",
    "base_model": "google-bert/bert-base-uncased",
    "hyperparameters": {
        "epochs": 4, "learning_rate": 5e-5, "batch_size": 32, "max_length": 128, "seed": 42,
        "early_stopping_patience": 2,
    },
    "mlflow_tracking_uri": "http://localhost:5000",
    "mlflow_experiment": "support",
    "mlflow_run_name": "manual__1",
}  # fmt: skip


def test_a_job_of_an_earlier_release_is_read_and_keeps_its_id() -> None:
    assert Job.model_validate(OLD).job_id == "a1f36d6f81d6fb8e", "as that release named it"


@pytest.mark.parametrize("name", ["dataset_hash", "base_model_revision", "trainer_hash", "repeats"])
def test_what_decides_the_outcome_is_another_job(name: str) -> None:
    plain = job("s3://bert/datasets/d1/", "org/name", "http://localhost:5000")
    ids = {plain.model_copy(update={name: value}).job_id for value in ("", "a", "b")}
    assert len(ids) == 3
    assert plain.model_copy(update={name: "a"}).request_id == plain.request_id


def test_addresses_and_names_are_no_other_job() -> None:
    plain = job("s3://bert/datasets/d1/", "org/name", "http://localhost:5000")
    other = {"mlflow_tracking_uri": "x", "mlflow_run_name": "y", "image": "z", "versions": {"torch": "3"}}
    assert plain.model_copy(update=other).job_id == plain.job_id


@pytest.fixture
def ask(file_lake: str, tmp_path: Path, set_env: Any) -> Callable[..., Job]:
    """The job that a run's task gets; the registry is a file's."""
    set_env(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")

    def call(run_id: str, base_model: str, *, in_pod: bool = False, dataset: str = "d1", **params: Any) -> Job:
        asked = {
            "base_model": base_model,
            "epochs": 1,
            "learning_rate": 1e-3,
            "batch_size": 8,
            "max_length": 16,
            "seed": 1,
        }
        context = {"params": asked | params, "run_id": run_id}
        uri = lake.dataset(dataset)
        return submission.job_of(context, "train_model", uri, "http://mlflow", image="i@sha256:1", in_pod=in_pod)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def test_an_alias_that_has_moved_is_another_job_and_a_run_that_has_begun_keeps_its_own(
    ask: Callable[..., Job], folder: Path
) -> None:
    client = MlflowClient(settings().mlflow_tracking_uri)
    client.create_registered_model("x")
    for number in ("1", "2"):
        client.create_model_version("x", source=f"file://{folder}")
        client.set_registered_model_alias("x", "champion", number)
        assert ask(f"run {number}", "models:/x@champion").base_model_revision == f"x/{number}"
    first, second = (ask(f"run {number}", "models:/x@champion") for number in (1, 2))
    assert first.job_id != second.job_id
    assert first.base_model_revision == "x/1", "the same run, asked again"
    assert ask("run 3", "models:/x@champion").job_id == second.job_id


def test_code_that_changes_in_the_middle_of_a_run_begins_no_other_job(
    ask: Callable[..., Job], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ask("run", str(folder))
    monkeypatch.setattr(provenance, "trainer_hash", lambda: "another")
    assert ask("run", str(folder)) == before
    assert ask("other run", str(folder)).job_id != before.job_id
    assert ask("run", str(folder), dataset="d2").trainer_hash == "another", "another dataset is another job"
    assert ask("run", str(folder), dataset="d2").job_id != before.job_id


def test_a_run_that_an_earlier_release_has_begun_goes_on_with_its_job(ask: Callable[..., Job], folder: Path) -> None:
    asked = ask("other run", str(folder))
    plain = Job(**asked.model_dump(include=set(OLD)) | {"mlflow_run_name": "run"})
    plain.submit()
    assert ask("run", str(folder)).job_id == plain.job_id == asked.request_id


def test_a_job_names_all_that_decides_it(ask: Callable[..., Job], folder: Path) -> None:
    objects.write_json(lake.dataset("d1", "manifest.json"), {"dataset_id": "d1"})
    here = ask("run", str(folder))
    assert here.base_model_revision.startswith("sha256:")
    assert here.trainer_hash == provenance.trainer_hash()
    assert (here.dataset_hash, here.image) == ("d1", "i@sha256:1")
    assert {"python", "torch", "transformers", "numpy"} <= here.versions.keys()
    assert ask("in a pod", str(folder), in_pod=True).versions == {}, "they are the image's"


def test_a_folder_that_only_the_pod_has_is_left_to_it(ask: Callable[..., Job], tmp_path: Path) -> None:
    assert ask("run", "/opt/model", in_pod=True).base_model_revision == ""
    with pytest.raises(AirflowException, match="/opt/model does not exist"):
        ask("other", "/opt/model")
    with pytest.raises(AirflowException, match="not in the registry"):
        ask("third", "models:/x@champion", in_pod=True)


def test_hyperparameters_come_from_the_run_and_what_it_does_not_say_from_the_settings(
    ask: Callable[..., Job], folder: Path
) -> None:
    assert ask("run", str(folder), seed=7).hyperparameters == Hyperparameters(
        epochs=1, learning_rate=1e-3, batch_size=8, max_length=16, seed=7, early_stopping_patience=2
    )
