"""Retrains the champion when there is a reason to: the new model is compared, deployed and watched, or given up."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.orchestration.params import retraining_params
from include.orchestration.production import road_to_production
from include.orchestration.timetable import own_run_ids
from include.orchestration.watch_sensor import ChampionSensor
from include.settings import settings


@dag(
    dag_id="model_retraining_dag",
    description="Retrains the champion when there is a reason to: compared, deployed and watched, or given up.",
    schedule=own_run_ids(settings().retrain_schedule, "model_retraining_dag"),
    **OF_EVERY_DAG,
    max_active_runs=1,  # a second one waits
    dagrun_timeout=timedelta(days=3),  # the road's two, and the watch
    default_args=TASK_DEFAULTS,
    params=retraining_params(),
    tags=["bert", "training"],
    doc_md="""
Started by `data_validation_dag` when it decides so, by `ml_pipeline_dag`, by hand, by
`POST /api/v1/dags/model_retraining_dag/dagRuns`, and by the calendar if `BERT_RETRAIN_SCHEDULE` says so. A decision
that comes twice (`decision_id`) trains once.

It trains on the champion's rows and on all uploads and corrections that no run uses, backs the champion up, and
compares both on the golden rows. A new model that passes is tried as the server loads it, becomes the champion, and is
watched for `BERT_WATCH_MINUTES`; if it fails then, the champion before comes back by itself. One that does not pass
leaves the champion where it is, and the champion's files are compared with the backup.
""",
)
def model_retraining_dag() -> None:
    @task
    def build_dataset(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.orchestration import retraining_steps

        return retraining_steps.build_dataset(dag_run, params)

    @task
    def backup_current_model(dag_run: Any = None) -> dict[str, Any]:
        from include.orchestration import retraining_steps

        return retraining_steps.back_up(dag_run)

    @task.branch
    def compare_models(evaluated: dict[str, Any]) -> str:
        from include.orchestration import retraining_steps

        return retraining_steps.choose(evaluated)

    @task
    def rollback_model(evaluated: dict[str, Any], backed_up: dict[str, Any], dag_run: Any = None) -> dict[str, Any]:
        from include.orchestration import retraining_steps

        return retraining_steps.lose(dag_run, evaluated, backed_up)

    road = road_to_production(
        dataset_uri="{{ ti.xcom_pull(task_ids='build_dataset')['dataset_uri'] }}",
        train_id="retrain_model",
        evaluate_id="evaluate_new_model",
        decide_id="deploy_new_model",
    )
    backup = backup_current_model()
    rollback = rollback_model(road.evaluate, backup)
    build_dataset() >> backup >> road.group
    compare_models(road.evaluate) >> [road.decide, rollback]
    watch = ChampionSensor(
        task_id="watch_new_model",
        after=["deploy_new_model", "rollback_model"],
        trigger_rule="none_failed_min_one_success",
    )
    [road.decide, rollback] >> watch


model_retraining_dag()
