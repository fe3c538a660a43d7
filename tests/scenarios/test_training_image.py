"""The image's content without a container engine: the files its Dockerfile copies, on the packages it pins."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include import objects
from include.training.job import Job, Result
from tests.unit.training_models import job, rows, save_bert, save_dataset

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "include" / "training"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the pinned packages and nothing else."""
    environment = tmp_path_factory.mktemp("image") / "venv"
    uv = Path(sys.executable).with_name("uv")
    wheels = Path(os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or "no folder")
    torch = ["--find-links", wheels] if any(wheels.glob("torch-*.whl")) else ["--torch-backend=cpu"]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python, *torch]
    subprocess.run([*install, "-r", TRAINER / "requirements.txt", "-c", TRAINER / "constraints-cuda.txt"], check=True)
    return python


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Dockerfile copies from the repository."""
    folder = tmp_path_factory.mktemp("app")
    for sources, target in re.findall(r"^COPY (include/.+) (include/\S*)$", _dockerfile(), re.MULTILINE):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for source in (path for pattern in sources.split() for path in ROOT.glob(pattern)):
            shutil.copy(source, folder / target)
    return folder


@pytest.fixture
def submitted(tmp_path: Path) -> tuple[Job, str]:
    """A job of a few seconds, and where its folder is."""
    dataset = save_dataset(tmp_path / "dataset", rows(48), rows(12, seed=1))
    base_model = save_bert(tmp_path / "base", mean_pooling=False)
    submitted = job(dataset, base_model, f"file://{tmp_path}/mlruns", epochs=1)
    folder = f"file://{tmp_path}/jobs/{submitted.job_id}"
    objects.write_bytes(f"{folder}/job.json", submitted.model_dump_json().encode())
    return submitted, folder


def _dockerfile() -> str:
    return (TRAINER / "Dockerfile").read_text()


def _train(python: Path, app: Path, job_uri: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the Dockerfile's entry point, in the app's folder and with nothing of this process's environment."""
    entry_point = re.findall(r"^ENTRYPOINT (.+)$", _dockerfile(), re.MULTILINE)[-1]
    # Files in place of an MLflow server: without SQLAlchemy the image cannot open the SQLite that other tests use.
    environment = {
        "PATH": str(python.parent),
        "HOME": str(app),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "BERT_LOCAL_BASE_MODELS": "true",
    } | variables
    command = [*json.loads(entry_point), job_uri]  # JSON is the exec form, in which SIGTERM reaches the trainer
    return subprocess.run(command, cwd=app, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.nightly
def test_a_job_trains_with_the_pinned_packages_alone(python: Path, app: Path, submitted: tuple[Job, str]) -> None:
    job, folder = submitted
    done = _train(python, app, f"{folder}/job.json")
    assert done.returncode == 0, done.stderr
    result = Result.model_validate(objects.read_json(f"{folder}/result.json"))
    assert result.job_id == job.job_id
    assert objects.exists(f"{result.model_uri}/model.safetensors")


@pytest.mark.nightly
def test_it_finds_its_way_to_s3(python: Path, app: Path, s3_endpoint: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    done = _train(python, app, "s3://nowhere/jobs/1/job.json", AWS_ENDPOINT_URL=s3_endpoint, **keys)
    assert done.returncode == 1
    assert "no job at s3://nowhere/jobs/1/job.json" in done.stderr


@pytest.mark.parametrize("package", ["airflow", "astro", "pandas", "sqlalchemy"])
def test_what_only_the_rest_of_the_project_needs_is_not_there(python: Path, package: str) -> None:
    done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True)
    assert f"No module named '{package}'" in done.stderr
