"""Deletes training pods that nobody waits for.

A task that is marked failed or whose run is deleted takes its pod with it by its trigger. Airflow starts no trigger for
a task that is over, though: where the triggerer was down just then, or had not begun to watch yet, the pod would train
on for nobody. So would one whose last try could not watch it, or whose deletion the Kubernetes API did not answer.
"""

import logging

from airflow.models import DagRun, TaskInstance, XCom
from airflow.utils.session import create_session
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import or_

from include.orchestration.pod_operator import JOB_ID, PodTraining

logger = logging.getLogger(__name__)


def clean_up() -> dict[str, int]:
    """Deletes the pods of this Airflow for whose job no unfinished task waits; how many, and how many are left."""
    training = PodTraining(task_id="training_pods", dataset_uri="")
    pods = training.pods()  # before the waiters, each of which is known before it asks for a pod
    waited_for = waiting_jobs()
    if waited_for is None:
        logger.info("a task has just begun and has not said yet which job it waits for; leaving all %d pods", len(pods))
        return {"deleted": 0, "kept": len(pods)}
    deleted = 0
    for pod in pods:
        if pod.metadata.labels[JOB_ID] in waited_for or pod.metadata.deletion_timestamp is not None:
            continue
        made_by, phase = (pod.metadata.annotations or {}).get("run_id"), pod.status.phase
        logger.info("deleting pod %s (%s, made by run %s): no task waits for it", pod.metadata.name, phase, made_by)
        training.delete(pod)
        deleted += 1
    return {"deleted": deleted, "kept": len(pods) - deleted}


def waiting_jobs() -> set[str] | None:
    """The jobs that unfinished tasks wait for, or would go on waiting for in their next try.

    None if that cannot be told: a try says its job in its first seconds. One that is still to begin has none, or that
    of the try before it.
    """
    unfinished = or_(TaskInstance.state.is_(None), TaskInstance.state.not_in(State.finished))
    jobs = set()
    with create_session() as session:
        found = session.query(TaskInstance).join(TaskInstance.dag_run)
        ours = TaskInstance.operator == PodTraining.__name__
        for task in found.filter(ours, unfinished, DagRun.state.in_(State.unfinished_dr_states)):
            job_id = XCom.get_value(ti_key=task.key, key=JOB_ID, session=session)
            if job_id is not None:
                jobs.add(str(job_id))
            elif task.state in (TaskInstanceState.RUNNING, TaskInstanceState.DEFERRED):
                return None
    return jobs
