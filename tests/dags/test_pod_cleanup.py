"""Which pods the cleanup deletes, with a real metadata database and the stand-in of the pods API."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from airflow.models import DAG, DagRun, XCom
from airflow.utils.db import initdb
from airflow.utils.session import create_session

from include.orchestration import pod_cleanup, pod_operator
from include.orchestration.training_task import training_task
from include.settings import settings
from tests.pods_api import Cluster


@pytest.fixture(scope="module")
def database() -> None:
    initdb(load_connections=False)


@pytest.fixture
def cluster(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with Cluster().running() as cluster:
        monkeypatch.setenv("BERT_TRAINING_BACKEND", "kubernetes")
        monkeypatch.setenv("BERT_POD_IMAGE", "registry.example.com/trainer:1")
        monkeypatch.setenv("BERT_POD_GRACE_SECONDS", "1")
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", cluster.connection)
        settings.cache_clear()
        yield cluster
    settings.cache_clear()


@pytest.fixture
def waiting(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Makes a run whose training task is in a state and has said which job it waits for, or has not."""
    with DAG("pipeline", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:
        training_task(task_id="train_model", dataset_uri="d")

    def make(state: str | None, job_id: str | None, run_state: str = "running") -> None:
        now = datetime.now(UTC)
        with create_session() as session:
            run_id = f"manual__{now.isoformat()}"
            run = dag.create_dagrun(
                run_id=run_id, state=run_state, execution_date=now, data_interval=(now, now), session=session
            )
            (task,) = run.get_task_instances(session=session)
            task.state = state
        if job_id:
            XCom.set(key="job_id", value=job_id, dag_id="pipeline", task_id="train_model", run_id=run_id)

    yield make
    with create_session() as session:
        session.query(DagRun).delete()


def start(cluster: Cluster, job_id: str, airflow_id: str = "") -> None:
    """A pod that goes on until it is deleted."""
    labels = {"job_id": job_id, "airflow_id": airflow_id or pod_operator.airflow_id()}
    container = {"name": "trainer", "image": "i", "command": ["sleep", "600"], "args": [], "env": []}
    metadata = {"name": f"train-{job_id}", "namespace": "training", "labels": labels}
    cluster.create({"metadata": metadata, "spec": {"containers": [container]}})


def jobs(cluster: Cluster) -> set[str]:
    """Those whose pods nobody has asked to stop."""
    found = (pod["metadata"] for pod in cluster.pods)
    return {one["labels"]["job_id"] for one in found if "deletionTimestamp" not in one}


@pytest.mark.parametrize(
    ("state", "run_state", "kept"),
    [
        ("deferred", "running", True),
        ("running", "running", True),
        (None, "queued", True),  # cleared: the next try attaches to the pod
        ("up_for_retry", "running", True),
        ("failed", "running", False),
        ("success", "success", False),
        ("skipped", "failed", False),  # the run has timed out
        (None, "failed", False),  # cleared in a run that is over and stays so
    ],
)
def test_a_pod_stays_as_long_as_an_unfinished_task_waits_for_its_job(
    cluster: Cluster, waiting: Any, state: str | None, run_state: str, kept: bool
) -> None:
    start(cluster, "a")
    waiting(state, "a", run_state)
    waiting("failed", "a", "failed")
    assert pod_cleanup.clean_up() == {"deleted": int(not kept), "kept": int(kept)}
    assert jobs(cluster) == ({"a"} if kept else set())


def test_the_pods_of_another_run_job_or_airflow_are_told_apart(cluster: Cluster, waiting: Any) -> None:
    start(cluster, "a")
    start(cluster, "b")
    start(cluster, "c", airflow_id="another")
    waiting("deferred", "b")
    waiting(None, None)  # its turn has not come
    assert pod_cleanup.clean_up() == {"deleted": 1, "kept": 1}
    assert jobs(cluster) == {"b", "c"}


def test_a_pod_whose_run_was_deleted_goes_and_is_deleted_once(cluster: Cluster) -> None:
    start(cluster, "a")
    cluster.lose_node("train-a")
    start(cluster, "b")
    assert pod_cleanup.clean_up() == {"deleted": 1, "kept": 1}, "the lost one was deleted by somebody else"


def test_a_task_that_has_not_said_its_job_yet_keeps_all_pods(cluster: Cluster, waiting: Any) -> None:
    start(cluster, "a")
    waiting("running", None)
    assert pod_cleanup.clean_up() == {"deleted": 0, "kept": 1}
    assert jobs(cluster) == {"a"}


def test_without_the_right_to_list_pods_it_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.pods_api.TOKEN", "another")
    with pytest.raises(AirflowException, match="refuses the list of pods: 401"):
        pod_cleanup.clean_up()


def test_the_id_of_this_airflow_stays(cluster: Cluster) -> None:
    assert pod_operator.airflow_id() == pod_operator.airflow_id()
    assert len(pod_operator.airflow_id()) == 32
