"""The week's pipeline: what is new is validated, made a dataset by DVC, trained on, evaluated, and deployed."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.operators.trigger_dagrun import TriggerDagRunOperator

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.orchestration.etl_sensor import EtlSensor
from include.orchestration.params import etl_params
from include.orchestration.production import road_to_production
from include.orchestration.timetable import own_run_ids
from include.orchestration.watch_sensor import ChampionSensor

ETL_DAYS = timedelta(days=2)  # a run of weekly_etl takes no longer
DECISION = "ti.xcom_pull(task_ids='drift_is_left')"


@dag(
    dag_id="ml_pipeline_dag",
    description="What is new in a week is validated, made a dataset by DVC, trained on, evaluated, and deployed.",
    schedule=own_run_ids("@weekly", "ml_pipeline_dag"),
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=5),  # weekly_etl's two, the road's two, and the watch
    default_args=TASK_DEFAULTS,
    params=etl_params(),
    tags=["bert", "training"],
    doc_md="""
Waits for the week's `weekly_etl`, which trains on its own rows, and takes what is left then: uploads that no run has
used, and rows that a run before has released. If nothing is new since the last run of this DAG, all is skipped.

`preprocess` is a DVC stage: the same rows upon the same champion's are made a dataset once, and kept in `dvc/` in the
bucket. What follows is the road that every training takes; a new champion is watched for `BERT_WATCH_MINUTES`. If the
champion's traffic has drifted this week and no new champion came of it, `model_retraining_dag` is started, unless the
rules of `data_validation_dag` say otherwise: its cool-down, its month's retrainings, something new to learn from.
""",
)
def ml_pipeline_dag() -> None:
    check_new_data = EtlSensor(task_id="check_new_data", poke_interval=30, timeout=ETL_DAYS.total_seconds())

    @task
    def validate_data(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.orchestration import intake_steps

        return intake_steps.validate(dag_run, {**params, "dataset_uri": None})

    @task
    def preprocess(validated: dict[str, Any], dag_run: Any = None) -> dict[str, Any]:
        from include.orchestration import dvc_stage

        return dvc_stage.preprocess(dag_run, validated)

    @task
    def check_drift(dag_run: Any = None) -> dict[str, Any]:
        from include.orchestration import pipeline_steps

        return pipeline_steps.check_drift(dag_run)

    @task.short_circuit
    def drift_is_left(drift: dict[str, Any], challenger: dict[str, Any], dag_run: Any = None) -> dict[str, str]:
        from include.orchestration import pipeline_steps

        return pipeline_steps.decide_on_rest(dag_run, drift, challenger)

    validated = validate_data()
    dataset = preprocess(validated)
    road = road_to_production(
        dataset_uri="{{ ti.xcom_pull(task_ids='preprocess')['dataset_uri'] }}",
        train_id="train",
        evaluate_id="evaluate",
        decide_id="deploy",
    )
    drift = check_drift()
    check_new_data >> validated
    dataset >> road.group
    road.evaluate >> drift >> road.decide >> ChampionSensor(task_id="watch_new_model", after=["deploy"])
    drift_is_left(drift, road.decide) >> TriggerDagRunOperator(
        task_id="start_retraining",
        trigger_dag_id="model_retraining_dag",
        trigger_run_id=f"drift__{{{{ {DECISION}['decision_id'] }}}}",  # cleared, it starts no second one
        skip_when_already_exists=True,
        conf={
            "reason": f"{{{{ {DECISION}['reason'] }}}}",
            "decision_id": f"{{{{ {DECISION}['decision_id'] }}}}",
        },
    )


ml_pipeline_dag()
