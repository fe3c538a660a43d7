"""How the two DAGs of the main job hang together."""

import copy
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import DAG
from airflow.exceptions import AirflowFailException, ParamValidationError
from airflow.models.param import ParamsDict
from airflow.operators.empty import EmptyOperator

from include.orchestration.defaults import START
from include.orchestration.params import refuse_wrong_request
from include.orchestration.production import road_to_production


def chain(dag: Any) -> list[str]:
    """The task ids in order; fails if the DAG is not a chain."""
    (task,), found = dag.roots, []
    while task is not None:
        found.append(task.task_id)
        assert len(task.downstream_list) < 2, f"more than one task comes after {task.task_id}"
        task = next(iter(task.downstream_list), None)
    assert len(found) == len(dag.tasks)
    return found


def test_the_training_pipeline_is_a_chain(bag: Any) -> None:
    assert chain(bag.dags["bert_model_training_pipeline"]) == [
        "wait_for_data",
        "wait_for_turn",
        "validate_data",
        "load_rows",
        "preprocess_data",
        "train_model",
        "evaluate_model",
        "upload_model",
    ]


def test_the_grid_shows_the_tasks_in_their_order(bag: Any) -> None:
    shown = [node.node_id for node in bag.dags["bert_model_training_pipeline"].task_group.topological_sort()]
    assert shown[-3:] == ["load_rows", "preprocess_data", "road_to_production"]


def test_every_dag_that_trains_takes_the_same_road_with_ids_of_its_own() -> None:
    with DAG("retraining", start_date=START, schedule=None) as dag:
        road = road_to_production(
            dataset_uri="s3://b/datasets/d/", train_id="retrain_model", evaluate_id="evaluate_new", decide_id="deploy"
        )
        road.evaluate >> EmptyOperator(task_id="compare_models") >> road.decide
    after = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert after == {
        "retrain_model": {"evaluate_new"},
        "evaluate_new": {"compare_models", "deploy"},  # what the decision rests on is the evaluation's
        "compare_models": {"deploy"},
        "deploy": set(),
    }


def after(dag: Any) -> dict[str, set[str]]:
    """The tasks that come after each, as in the picture of the DAG."""
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


def test_retraining_ends_in_a_deployment_or_a_rollback_and_either_is_watched(bag: Any) -> None:
    assert after(bag.dags["model_retraining_dag"]) == {
        "build_dataset": {"backup_current_model"},
        "backup_current_model": {"retrain_model", "rollback_model"},  # what it compares the champion with
        "retrain_model": {"evaluate_new_model"},
        "evaluate_new_model": {"compare_models", "deploy_new_model", "rollback_model"},
        "compare_models": {"deploy_new_model", "rollback_model"},
        "deploy_new_model": {"watch_new_model"},
        "rollback_model": {"watch_new_model"},
        "watch_new_model": set(),
    }
    assert bag.dags["model_retraining_dag"].get_task("retrain_model").pool == "gpu"


def test_the_weeks_pipeline_goes_on_the_same_road(bag: Any) -> None:
    found = after(bag.dags["ml_pipeline_dag"])
    named = ["check_new_data", "validate_data", "preprocess", "train", "evaluate", "check_drift", "deploy"]
    for one, other in itertools.pairwise(named):
        assert other in found[one]
    assert found["deploy"] == {"watch_new_model", "drift_is_left"}
    assert found["drift_is_left"] == {"start_retraining"}
    assert bag.dags["ml_pipeline_dag"].timetable.summary == "@weekly"


def test_retraining_and_the_weeks_pipeline_take_the_hyperparameters_of_the_main_one(bag: Any) -> None:
    main = set(bag.dags["bert_model_training_pipeline"].params) - {"dataset_uri", "text_column", "label_column"}
    assert set(bag.dags["ml_pipeline_dag"].params) == main
    assert set(bag.dags["model_retraining_dag"].params) == main | {"reason", "decision_id"}


def test_the_listener_starts_the_pipeline_through_a_dataset(bag: Any) -> None:
    listener = bag.dags["s3_upload_listener"]
    assert chain(listener) == ["wait_for_upload", "claim_uploads"]
    assert listener.timetable.summary == "@continuous"
    (outlet,) = listener.get_task("claim_uploads").outlets
    trigger = bag.dags["bert_model_training_pipeline"].timetable.dataset_condition
    assert [uri for uri, _ in trigger.iter_datasets()] == [outlet.uri]


def test_the_sender_of_alerts_always_runs(bag: Any) -> None:
    assert chain(bag.dags["send_alerts"]) == ["send"]
    assert bag.dags["send_alerts"].timetable.summary == "@continuous"


def test_the_daily_validation_checks_after_the_schema_and_decides_after_all_checks(bag: Any) -> None:
    dag = bag.dags["data_validation_dag"]
    checks = {"check_data_quality", "check_distributions", "detect_anomalies"}
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "validate_schema": checks,
        **{check: {"decide_on_drift"} for check in checks},
        "decide_on_drift": {"is_retraining_due"},
        "is_retraining_due": {"trigger_retraining"},
        "trigger_retraining": set(),
    }
    trigger = dag.get_task("trigger_retraining")
    assert trigger.trigger_dag_id == "model_retraining_dag"
    assert set(trigger.conf) == {"reason", "decision_id"}


def test_training_stands_behind_the_gpu_pool(bag: Any) -> None:
    assert bag.dags["bert_model_training_pipeline"].get_task("train_model").pool == "gpu"


def test_preprocess_gets_its_table_as_a_frame(bag: Any) -> None:
    """The Astro SDK looks at the annotation itself; as a string it would hand over the Table."""
    import pandas as pd

    task = bag.dags["bert_model_training_pipeline"].get_task("preprocess_data")
    assert task.python_callable.__annotations__["rows"] is pd.DataFrame


@pytest.mark.parametrize(
    ("uri", "bucket", "pattern"),
    [
        (None, "bert", "claims/*/manifest.json"),
        ("s3://other/a/b.csv", "other", "a/b.csv"),
        ("s3://other/a/", "other", "a/*"),
        ("s3://other/a/*.jsonl", "other", "a/*.jsonl"),
        ("s3://other/a [1]?.csv", "other", "a [[]1][?].csv"),
    ],
)
def test_the_run_waits_for_its_own_data_or_for_any_claim(bag: Any, uri: str | None, bucket: str, pattern: str) -> None:
    dag = bag.dags["bert_model_training_pipeline"]
    task = dag.get_task("wait_for_data").prepare_for_execution()
    task.render_template_fields({"params": {"dataset_uri": uri}, **dag.user_defined_macros})
    assert (task.bucket_name, task.bucket_key) == (bucket, pattern)


def validated(bag: Any, conf: dict[str, Any]) -> dict[str, Any]:
    """The params as Airflow checks them when a run is created."""
    params = ParamsDict(bag.dags["bert_model_training_pipeline"].params)
    params.update(conf)
    return params.validate()


@pytest.mark.parametrize(
    "conf",
    [
        {"epochs": 0},
        {"epochs": "three"},
        {"label_mapping": "a=b"},
        {"label_mapping": {"a": 1}},
        {"learning_rate": 0},
        {"batch_size": 1.5},
        {"base_model": ""},
        {"dataset_uri": "not a uri"},
        {"text_column": 3},
        {"seed": -1},
        {"promotion": "never"},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused_before_anything_runs(bag: Any, conf: dict[str, Any]) -> None:
    with pytest.raises(ParamValidationError):
        validated(bag, conf)


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("decide_challenger", {"decision": "perhaps", "version": "3", "name": "Ada", "reason": "x"}),
        ("decide_challenger", {"decision": "approve", "version": "three", "name": "Ada", "reason": "x"}),
        ("decide_challenger", {"decision": "approve", "version": "3", "name": "", "reason": "x"}),
        ("decide_challenger", {"decision": "approve", "version": "3", "name": "Ada"}),
        ("decide_upload", {"decision": "establish", "name": "Ada", "reason": "x"}),
        ("decide_labels", {"decision": "admit", "name": "Ada", "reason": "x"}),
        ("decide_labels", {"decision": "rename", "label": "card", "name": "Ada", "reason": "x"}),
        ("decide_upload", {"decision": "approve", "run_id": "r", "name": "Ada", "reason": "x"}),
    ],
)
def test_a_person_who_decides_says_what_who_and_why(bag: Any, dag_id: str, conf: dict[str, Any]) -> None:
    params = {name: copy.deepcopy(param) for name, param in bag.dags[dag_id].params.items()}
    with pytest.raises(ParamValidationError):
        [param.resolve(conf.get(name, param.value)) for name, param in params.items()]


@pytest.mark.parametrize("dag_id", ["bert_model_training_pipeline", "model_rollback", "decide_challenger"])
def test_a_misspelt_parameter_ends_a_run_of_any_dag_with_the_nearest_name(bag: Any, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    meant = next(name for name in dag.params if "_" in name)
    context = {"params": {}, "dag": dag, "dag_run": SimpleNamespace(conf={meant.replace("_", "-"): "x"})}
    with pytest.raises(AirflowFailException, match=f"did you mean '{meant}'"):
        refuse_wrong_request(context)
    refuse_wrong_request(context | {"dag_run": SimpleNamespace(conf=None)})


def test_all_misspelt_parameters_are_named_with_those_there_are(bag: Any) -> None:
    dag = bag.dags["bert_model_training_pipeline"]
    dag_run = SimpleNamespace(conf={"epoch": 3, "dataset_url": "s3://x/y", "something": 1})
    with pytest.raises(AirflowFailException) as failure:
        refuse_wrong_request({"params": {}, "dag": dag, "dag_run": dag_run})
    words = str(failure.value)
    assert "'epoch' (did you mean 'epochs'?), 'dataset_url' (did you mean 'dataset_uri'?), 'something'." in words
    assert "learning_rate" in words


def test_a_base_model_that_is_not_allowed_ends_a_run_with_what_is(bag: Any) -> None:
    params = {"base_model": "http://example.com/model"}
    dag_run = SimpleNamespace(conf=params)
    context = {"params": params, "dag": bag.dags["bert_model_training_pipeline"], "dag_run": dag_run}
    with pytest.raises(AirflowFailException, match=r"'http://example.com/model' .*: allowed are a Hugging Face id"):
        refuse_wrong_request(context)


def test_a_mapping_of_labels_that_makes_no_sense_ends_a_run_with_what_is_wrong(bag: Any) -> None:
    params = {"label_mapping": {"a": "b", "b": "c"}}
    context = {
        "params": params,
        "dag": bag.dags["bert_model_training_pipeline"],
        "dag_run": SimpleNamespace(conf=params),
    }
    with pytest.raises(AirflowFailException, match="label_mapping: 'a' → 'b' → 'c' is a chain"):
        refuse_wrong_request(context)


def test_the_documented_parameters_are_accepted(bag: Any) -> None:
    conf = {
        "dataset_uri": "s3://bert/incoming/a.csv", "text_column": "Betreff", "label_column": "Team",
        "label_mapping": {"billing": "invoices"},
        "base_model": "models:/bert@champion", "epochs": 3,
        "learning_rate": 2e-5, "batch_size": 16, "max_length": 256, "seed": 7, "promotion": "manual",
    }  # fmt: skip
    dag = bag.dags["bert_model_training_pipeline"]
    assert set(dag.params) == set(conf)
    assert validated(bag, conf) == conf
