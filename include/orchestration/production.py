"""The one road to production: train, evaluate, decide. Every DAG that trains takes it."""

from dataclasses import dataclass
from typing import Any

from airflow.decorators import task
from airflow.models import BaseOperator
from airflow.utils.task_group import TaskGroup

from include.orchestration.training_task import training_task


@dataclass(frozen=True)
class Road:
    """The tasks of a road. What comes before it is set upstream of ``group``, by which Airflow's grid then puts it
    where it belongs; what comes after it downstream of ``decide``.

    A task between ``evaluate`` and ``decide`` is set downstream of the one and upstream of the other.
    """

    group: TaskGroup
    train: BaseOperator
    evaluate: Any
    decide: Any


def road_to_production(
    *,
    dataset_uri: str,
    train_id: str = "train_model",
    evaluate_id: str = "evaluate_model",
    decide_id: str = "upload_model",
) -> Road:
    """Tasks that train on a snapshot, judge the model on the golden rows, and promote or reject it.

    ``dataset_uri`` is templated. The tasks' ids are as given: the group around them adds nothing to them.
    """
    with TaskGroup("road_to_production", prefix_group_id=False, tooltip="Trains, evaluates and decides") as group:
        train = training_task(task_id=train_id, dataset_uri=dataset_uri)
        evaluated = task(task_id=evaluate_id)(_evaluate)(train.output)
        return Road(group, train, evaluated, task(task_id=decide_id)(_decide)(evaluated))


def _evaluate(result_uri: str, dag_run: Any = None) -> dict[str, Any]:
    from include.orchestration import promotion_steps

    return promotion_steps.evaluate_challenger(dag_run, result_uri)


def _decide(evaluation: dict[str, Any], dag_run: Any = None) -> dict[str, Any]:
    from include.orchestration import promotion_steps

    return promotion_steps.decide_on_challenger(dag_run, evaluation)
