"""A version is trained again and exported: a small BERT, real S3, a real registry, a real ledger."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from sqlalchemy.engine import Engine

from dev import sample_data
from dev.sbom import write_sbom
from include import lake, objects
from include.orchestration import notes, reproduction, submission
from include.orchestration.export import export
from include.orchestration.training_task import LocalTraining
from include.registry import ledger, models
from include.settings import settings
from include.training.job import Result
from tests.programs import Program
from tests.scenarios.small_bert import save_small_bert
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

pytestmark = pytest.mark.nightly
MODEL = "support"


@pytest.fixture(scope="module", autouse=True)
def deployment(s3_endpoint: str, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    values = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BERT_BUCKET": "reproduction",
        "BERT_MODEL_NAME": MODEL,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        patch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))
        settings.cache_clear()
        boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="reproduction")
        yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def version(deployment: None, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version as the pipeline leaves it: trained, registered, promoted, with its card and evaluation."""
    data = sample_data.messages(120)
    folder = tmp_path_factory.mktemp("dataset")
    for split, rows in (("train", data[:90]), ("validation", data[90:])):
        pq.write_table(pa.Table.from_pandas(rows[["text", "label"]], preserve_index=False), folder / f"{split}.parquet")
    (folder / "manifest.json").write_text('{"dataset_id": "d1"}')
    dataset_uri = objects.upload(folder, lake.dataset("d1").rstrip("/"))
    base = save_small_bert(tmp_path_factory.mktemp("small"), data["text"].tolist())
    params = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16, "max_length": 32, "seed": 3}
    context = {"params": params | {"base_model": str(base)}, "run_id": "run 1"}
    job = submission.job_of(context, "train_model", dataset_uri, settings().mlflow_tracking_uri, image="", in_pod=False)
    train(job.submit())
    result = Result.model_validate(objects.read_json(lake.job(job.job_id, "result.json")))
    number = models.register(MODEL, result.model_uri, result.mlflow_run_id, {"job_id": job.job_id, "dataset_id": "d1"})
    objects.write_bytes(lake.model(MODEL, number, "README.md"), b"# the card")
    objects.write_json(lake.report("pipeline", "run 1", "evaluation.json"), {"golden_rows": 30})
    entry = ledger.Entry(
        model_name=MODEL, verb="promote", version=number, previous_champion=None, actor="dag:pipeline",
        reason="it is the first", dataset_id="d1", dag_run_id="run 1", job_id=job.job_id,
    )  # fmt: skip
    ledger.append(engine, entry)
    return number


def train(job_uri: str) -> None:
    code, output = Program("include.training", job_uri).communicate(400)
    assert code == 0, output


@pytest.fixture(scope="module")
def told(version: str) -> str:
    """What the command says that trains it again."""
    command = [sys.executable, "-m", "include.orchestration.reproduction", "--version", version]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repeated(told: str) -> str:
    """The result of training it again."""
    return re.findall(r"see (s3://\S+)/comparison.json", told)[0] + "/result.json"


def test_on_the_same_machine_with_the_same_versions_every_weight_is_the_same(version: str, repeated: str) -> None:
    comparison = reproduction.judge(MODEL, version, repeated)
    assert comparison.verdict == "same", comparison
    assert (comparison.differences, comparison.unknown) == ([], [])
    again = Result.model_validate(objects.read_json(repeated))
    original = reproduction.origin(MODEL, version)
    assert again.job_id != original.result.job_id, "a job of its own"
    assert again.mlflow_run_id != original.result.mlflow_run_id
    experiment = MlflowClient().get_experiment_by_name(f"{MODEL}-reproductions")
    assert MlflowClient().get_run(again.mlflow_run_id).info.experiment_id == experiment.experiment_id
    assert models.of_job(MODEL, again.job_id) is None, "nothing is registered"


def test_the_command_says_how_it_ended(version: str, told: str, repeated: str) -> None:
    assert f"{MODEL} version {version}: same. every tensor is the same." in told
    assert "validation_macro_f1" in told
    assert objects.read_json(repeated.replace("result.json", "comparison.json"))["verdict"] == "same"


def test_a_weight_that_nothing_explains_is_named(version: str, repeated: str, tmp_path: Path) -> None:
    uri = f"{reproduction.origin(MODEL, version).model_uri}/model.safetensors"
    file = objects.download_file(uri, tmp_path / "model.safetensors")
    whole = file.read_bytes()
    weights = load_file(file)
    weights["classifier.bias"][1] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    objects.upload_file(file, uri)
    try:
        comparison = reproduction.judge(MODEL, version, repeated)
    finally:
        objects.write_bytes(uri, whole)
    assert comparison.verdict == "different"
    assert "all settings are the same, and the weights are not: tensor classifier.bias:" in comparison.explanation


def test_an_export_is_one_folder_with_all_there_is(version: str, tmp_path: Path) -> None:
    folder = export(MODEL, version, tmp_path / "exports" / "support-1")
    assert write_sbom(folder) == []
    names = {path.name for path in folder.iterdir()}
    assert names == {"model", "README.md", "dataset.json", "job.json", "result.json", "decision.json", "sbom.json"}
    assert (folder / "README.md").read_text() == "# the card"
    assert json.loads((folder / "dataset.json").read_text())["dataset_id"] == "d1"
    decision = json.loads((folder / "decision.json").read_text())
    assert [entry["reason"] for entry in decision["ledger"]] == ["it is the first"]
    assert decision["evaluation"] == {"golden_rows": 30}
    assert json.loads((folder / "job.json").read_text())["base_model_revision"].startswith("sha256:")
    assert any(one["name"] == "torch" for one in json.loads((folder / "sbom.json").read_text())["components"])
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder / "model")
    with pytest.raises(FileExistsError, match="is there already"):
        export(MODEL, version, folder)
    shutil.rmtree(folder.parent)


def test_what_cannot_be_made_again_says_what_is_missing(version: str, tmp_path: Path) -> None:
    with pytest.raises(reproduction.NotReproducible, match="neither the registry nor the ledger knows a version 99"):
        reproduction.rebuild(MODEL, "99", "x")
    with pytest.raises(reproduction.NotReproducible, match="knows a version 99"):
        export(MODEL, "99", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    uri = f"{reproduction.origin(MODEL, version).job.dataset_uri}/validation.parquet"
    content = objects.read_bytes(uri)
    objects.delete(uri)
    try:
        with pytest.raises(
            reproduction.NotReproducible, match=r"dataset that is gone: there is no .*validation.parquet"
        ):
            reproduction.rebuild(MODEL, version, "x")
    finally:
        objects.write_bytes(uri, content)


def test_the_dag_does_the_same_and_notes_it(version: str, repeated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dags.reproduce_version import reproduce_version

    noted: dict[str, str] = {}
    monkeypatch.setattr(notes, "set_note", lambda dag_id, run_id, text: noted.update({run_id: text}))
    monkeypatch.setattr("dags.reproduce_version.provide_training_pool", lambda: None)  # it is in Airflow's database
    dag = reproduce_version()
    run = {"dag_run": SimpleNamespace(dag_id=dag.dag_id, run_id="run 2"), "params": {"version": version}}
    first, second = (dag.get_task("rebuild").python_callable(**run) for _ in range(2))
    assert first == second, "a retry goes on with the same job"
    assert first != repeated.replace("result.json", "job.json")
    training = LocalTraining(task_id="train_again", dataset_uri="", job_uri=repeated.replace("result.json", "job.json"))
    assert training.execute({"params": {}, "run_id": "run 2"}) == repeated
    assert dag.get_task("compare").python_callable(result_uri=repeated, **run)["verdict"] == "same"
    assert noted == {"run 2": "**same** — every tensor is the same"}


def test_a_version_that_the_registry_has_lost_is_made_again_from_the_ledger(version: str) -> None:
    MlflowClient().delete_model_version(MODEL, version)
    found = reproduction.origin(MODEL, version)
    assert found.model_uri == lake.model(MODEL, version).rstrip("/")
    assert reproduction.rebuild(MODEL, version, "from the ledger").endswith("/job.json")
