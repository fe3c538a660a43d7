"""Registration against a real MLflow server and S3 server, with a tiny real BERT."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from include import lake, objects
from include.registry import models
from include.registry.models import CHALLENGER, CHAMPION
from include.registry.promotion import (
    VersionUnusable,
    promote,
)
from include.settings import settings
from tests.unit.registry_services import MlflowServer, Registry

pytest_plugins = ["tests.unit.registry_services"]
pytestmark = pytest.mark.usefixtures("services")


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_server: MlflowServer) -> str:
    return mlflow_server.uri


def test_there_is_nothing_where_nothing_is_registered() -> None:
    assert models.by_alias("unheard-of", CHAMPION) is None
    assert models.by_version("unheard-of", "1") is None
    assert models.of_job("unheard-of", "j") is None


def test_a_registered_version_has_all_its_files_and_is_the_challenger(registry: Registry) -> None:
    version = registry.train("a" * 16)
    found = models.by_alias(registry.name, CHALLENGER)
    assert found is not None
    assert (found.version, found.uri) == (version, f"s3://bert/models/{registry.name}/1")
    assert found.tags["job_id"] == "a" * 16
    names = {uri.rsplit("/", 1)[1] for uri in objects.find(found.uri)}
    assert {"config.json", "model.safetensors", "tokenizer.json", "MLmodel"} <= names


def test_a_job_is_registered_once(registry: Registry) -> None:
    assert registry.train("b" * 16) == registry.train("b" * 16) == "1"
    assert registry.train("c" * 16) == "2"


def test_a_registration_cut_off_while_copying_is_finished(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(source: str, target: str) -> str:
        raise KeyboardInterrupt("killed while copying")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "copy", cut)
        with pytest.raises(KeyboardInterrupt):
            registry.train("d" * 16)
    half = models.by_version(registry.name, "1")
    assert half is not None
    assert not half.ready
    models.point(registry.name, CHAMPION, "1")
    assert models.by_alias(registry.name, CHAMPION) is None, "look-ups know ready versions only"
    with pytest.raises(VersionUnusable, match="not ready"):
        promote(registry.decision("1", None), registry.engine)
    assert registry.train("d" * 16) == "1"
    assert models.by_alias(registry.name, CHALLENGER) is not None


def test_numbers_of_deleted_versions_are_not_given_again_and_sources_still_agree(registry: Registry) -> None:
    from mlflow import MlflowClient

    registry.train()
    MlflowClient(settings().mlflow_tracking_uri).delete_model_version(registry.name, registry.train())
    version = models.by_version(registry.name, registry.train())
    assert version is not None
    assert version.uri == f"s3://bert/models/{registry.name}/{version.version}"


def test_two_jobs_at_once_get_two_versions_each_with_its_own_source(registry: Registry) -> None:
    registry.train()
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(lambda _: registry.train(), range(4)))
    assert len(set(versions)) == 4
    for version in versions:
        found = models.by_version(registry.name, version)
        assert found is not None
        assert found.uri.endswith(f"/{version}")


def test_a_folder_without_a_model_is_not_registered(registry: Registry) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing/config\.json"):
        models.register(registry.name, lake.job("nothing"), "", {"job_id": "e"})
    with pytest.raises(ValueError, match="job_id"):
        models.register(registry.name, lake.job("nothing"), "", {})


def test_mlflow_loads_the_champion_by_itself(registry: Registry, mlflow_uri: str) -> None:
    import mlflow
    import pandas as pd

    registry.promote_new()
    mlflow.set_tracking_uri(mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/{registry.name}@champion")
    labels = model.predict(["lost card", "a refund"])
    assert set(labels) <= {"card", "refund"}
    assert model.predict(pd.DataFrame({"id": [1, 2], "text": ["lost card", "a refund"]})) == labels
    assert model.predict("lost card") == labels[:1]
    found = model.predict(["lost card"], params={"probabilities": True})
    assert list(found.columns) == ["card", "refund"]
    assert found.iloc[0].sum() == pytest.approx(1, abs=1e-5)
    for given, said in (
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "no column text among 'a', 'b'"),
        (["a", None], "row 1 is None, which is no text"),
        (None, "there are no texts"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(given)


def test_mlflow_and_transformers_load_a_version_without_this_project(
    registry: Registry, mlflow_uri: str, tmp_path: Path
) -> None:
    version = registry.promote_new()
    objects.download(lake.model(registry.name, version), tmp_path / "model")
    script = """
import sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.metadata.signature.inputs, model.input_example)
frame = pandas.DataFrame({"id": [1], "text": ["lost card"]})
assert model.predict("lost card") == model.predict(["lost card"]) == model.predict(frame)
assert model.predict("lost card") == model.predict({"text": ["lost card"]})
assert model.predict(model.input_example)
import include
assert include.__file__.startswith(sys.argv[1]), include.__file__
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1])("lost card")[0]["label"], model.predict("lost card")[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model")],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    first, second = last.split()
    assert first == second
    assert "'text': string (required)" in done.stdout
    assert "my card has not arrived yet" in done.stdout
