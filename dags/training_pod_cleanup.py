"""Deletes training pods that nobody waits for; only there if training runs in pods."""

from datetime import timedelta

from airflow.decorators import dag, task

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.settings import settings


@dag(
    dag_id="training_pod_cleanup",
    description="Deletes training pods that nobody waits for.",
    schedule=timedelta(minutes=5),
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=10),
    default_args=TASK_DEFAULTS | {"retries": 1, "execution_timeout": timedelta(minutes=2)},
    tags=["bert", "training"],
    doc_md="""
Deletes each training pod of this Airflow that no unfinished task waits for, with its grace period for a last
checkpoint. Usually there is none: a task that is marked failed takes its pod with it. This is for what that misses, as
when the triggerer was down. The log says which pods went, the XCom how many.
""",
)
def training_pod_cleanup() -> None:
    @task
    def delete_pods() -> dict[str, int]:
        from include.orchestration.pod_cleanup import clean_up

        return clean_up()

    delete_pods()


if settings().training_backend == "kubernetes":
    training_pod_cleanup()
