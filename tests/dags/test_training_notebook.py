"""Notebooks that train in place of the script, run by papermill in a real kernel: how they fail, and what is kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from airflow.exceptions import AirflowException

from include import lake, objects
from include.orchestration.trainer_process import TrainerProcess, failure
from include.orchestration.training_notebook import notebook_of
from include.settings import Settings, settings

RUN = {"dag_run": SimpleNamespace(dag_id="weekly_etl", run_id="a run")}


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BERT_BUCKET", f"file://{tmp_path}/lake")
    settings.cache_clear()
    yield
    settings.cache_clear()


def train(cells: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Runs a notebook as the task does; why it failed, and what was logged."""
    new = nbformat.v4
    parameters = new.new_code_cell('job_uri = ""', metadata={"tags": ["parameters"]})
    notebook = new.new_notebook(cells=[parameters, *map(new.new_code_cell, cells)])
    nbformat.write(notebook, path)
    monkeypatch.setenv("TRAINING_NOTEBOOK", str(path))
    settings.cache_clear()
    lines: list[str] = []
    job = objects.write_json(lake.job("a-job", "job.json"), {})
    code, last = TrainerProcess(job, notebook_of(RUN)).run(lines.append)
    return (failure(code, last) if code else ""), lines


def kept(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(objects.read_bytes(lake.report("weekly_etl", "a run", name)))
    return found


def test_a_notebook_that_raises_fails_with_its_cell_and_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ["print('begun with', job_uri)", "rows = []\nraise ValueError('no rows\\n  of label x')"]
    said, lines = train(cells, tmp_path / "mine.ipynb", monkeypatch)
    assert "(exit code 1): mine.ipynb, cell [4] (rows = []): ValueError: no rows of label x" in said
    assert any(f"begun with {lake.job('a-job', 'job.json')}" in line for line in lines), (
        "what cells print is in the log"
    )
    assert "ValueError" in json.dumps(kept("mine.ipynb")), "the executed copy shows where"


def test_a_notebook_that_writes_no_result_has_failed_and_one_that_does_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, _ = train(["1"], tmp_path / "mine.ipynb", monkeypatch)
    assert "ended without having written" in said
    result = "job_uri.replace('job.json', 'result.json')"
    write = f"from include import objects\nobjects.write_json({result}, {{'status': 'fine'}})"
    assert train([write], tmp_path / "mine.ipynb", monkeypatch)[0] == ""
    _, lines = train(["raise ValueError"], tmp_path / "mine.ipynb", monkeypatch)
    assert "the job is done already" in lines[-1], "as the script: run twice, it finds the first result"


def test_a_notebook_that_is_not_there_and_one_for_pods_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notebook_of(RUN) is None
    monkeypatch.setenv("TRAINING_NOTEBOOK", "include/notebooks/trian.ipynb")
    settings.cache_clear()
    with pytest.raises(AirflowException, match=r"trian\.ipynb \(TRAINING_NOTEBOOK\)"):
        notebook_of(RUN)
    with pytest.raises(ValueError, match="BERT_TRAINING_BACKEND=local"):
        Settings(training_backend="kubernetes", training_notebook="x.ipynb", pod={"image": "x"})
