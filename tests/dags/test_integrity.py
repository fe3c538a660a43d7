"""What holds for every DAG."""

import ast
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.operators.trigger_dagrun import TriggerDagRunOperator

from include.orchestration.alerts import tell_if_timed_out, tell_of_failure
from include.orchestration.params import refuse_wrong_request

DAGS = Path(__file__).parents[2] / "dags"
FILES = sorted(DAGS.glob("*.py"))
HEAVY = {"torch", "transformers", "mlflow", "evidently", "sklearn", "matplotlib"}  # Airflow itself imports kubernetes


def test_every_file_imports_and_holds_the_dag_it_is_named_after(bag: Any, backend: str) -> None:
    assert bag.import_errors == {}
    only_with_pods = set() if backend == "kubernetes" else {"training_pod_cleanup"}
    assert set(bag.dags) == {file.stem for file in FILES} - only_with_pods


def test_every_dag_has_what_an_operator_of_it_needs(bag: Any) -> None:
    for dag in bag.dags.values():
        assert dag.doc_md, dag.dag_id
        assert dag.description, dag.dag_id
        assert dag.tags, dag.dag_id
        assert dag.catchup is False, dag.dag_id
        assert dag.max_active_runs == 1 or "wait_for_turn" in dag.task_ids, dag.dag_id
        assert dag.dagrun_timeout is not None, dag.dag_id
        assert dag.on_failure_callback is tell_if_timed_out, dag.dag_id


def test_every_task_retries_with_back_off_and_notes_its_failure(bag: Any) -> None:
    for dag in bag.dags.values():
        for task in dag.tasks:
            name = f"{dag.dag_id}.{task.task_id}"
            assert task.owner != "airflow", name
            assert task.retries >= 1, name
            assert task.retry_exponential_backoff or task.retries == 1, name  # of one retry nothing grows
            assert task.on_failure_callback is tell_of_failure, name
            assert not getattr(task, "email", None), f"{name}: mails are alerts"


def test_every_dag_with_parameters_refuses_a_wrong_request_before_its_first_task(bag: Any) -> None:
    with_params = [dag for dag in bag.dags.values() if dag.params]
    assert len(with_params) >= 2
    for dag in with_params:
        for task in dag.roots:
            assert task._pre_execute_hook is refuse_wrong_request, f"{dag.dag_id}.{task.task_id}"


def test_sensors_are_deferrable_and_end_some_day(bag: Any) -> None:
    waiting = [task for dag in bag.dags.values() for task in dag.tasks if hasattr(task, "poke_interval")]
    sensors = [task for task in waiting if not isinstance(task, TriggerDagRunOperator)]  # which waits for nobody here
    assert sensors
    for sensor in sensors:
        assert sensor.deferrable, sensor.task_id
        assert sensor.timeout <= timedelta(days=2).total_seconds(), sensor.task_id


def test_parsing_imports_nothing_heavy_and_reaches_for_nothing() -> None:
    """In a process of its own, with S3, MLflow and the warehouse at an address where nothing listens."""
    code = (
        "import sys, airflow.models.dagbag as d;"
        f"bag = d.DagBag({str(DAGS)!r}, include_examples=False);"
        "assert not bag.import_errors, bag.import_errors;"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dag_file_only_wires(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 120
    if "aql.dataframe" in text:
        imports = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
        assert "__future__" not in [node.module for node in imports], "switches @aql.dataframe's conversion off"
