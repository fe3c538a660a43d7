"""Training in pods with the real operator, Kubernetes client, trigger and trainer, against a stand-in of the pods API.

What a scheduler, a triggerer and a worker do with a deferred task, ``Attempt`` does here; test_kubernetes_stack.py has
the real ones.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import tenacity
from airflow.exceptions import AirflowException, TaskDeferred
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.utils.module_loading import import_string

from include import lake, objects
from include.settings import settings
from include.training.job import Result
from tests.pods_api import Cluster
from tests.unit.training_models import rows, save_bert, save_dataset

KEYS = {"AWS_ACCESS_KEY_ID": "the-id-of-the-key", "AWS_SECRET_ACCESS_KEY": "the-key-itself"}


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("BERT_BUCKET", "pods")
        settings.cache_clear()
        boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="pods")
        yield "s3://pods"
    settings.cache_clear()


@pytest.fixture(scope="module")
def dataset(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dataset")
    save_dataset(folder, rows(96), rows(24, seed=1))
    return objects.upload(folder, lake.dataset("tiny"))


@pytest.fixture(scope="module")
def base_model(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = save_bert(tmp_path_factory.mktemp("model"), mean_pooling=True)
    return objects.upload(folder, f"{lake.root()}/base")


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster().running() as cluster:
        cluster.secrets["s3-keys"] = KEYS
        yield cluster


class Attempt:
    """One try of the task: ``start`` until it is deferred, ``watch`` as the triggerer does, ``resume`` to its end."""

    def __init__(self, dataset: str, params: dict[str, Any], run_id: str = "manual__2026-01-01") -> None:
        self.dataset = dataset
        self.xcom: dict[str, Any] = {}
        ti = SimpleNamespace(
            dag_id="pipeline", task_id="train_model", run_id=run_id, try_number=1, map_index=-1, xcom_push=self._push
        )
        self.context = {"ti": ti, "run_id": run_id, "params": params, "dag": SimpleNamespace()}
        self.operator = self._operator()
        self.deferral: TaskDeferred | None = None

    def _push(self, key: str, value: Any) -> None:
        self.xcom[key] = value

    def _operator(self) -> Any:
        from include.orchestration.training_task import training_task

        return training_task(task_id="train_model", dataset_uri=self.dataset)

    def start(self) -> "Attempt":
        try:
            self.operator.execute(self.context)
        except TaskDeferred as deferral:
            self.deferral = deferral
        return self

    def watch(self) -> dict[str, Any]:
        """The event of a trigger that was rebuilt from what the metadata database keeps of it."""
        assert self.deferral is not None
        path, arguments = json.loads(json.dumps(self.deferral.trigger.serialize()))

        async def first() -> Any:
            return await anext(import_string(path)(**arguments).run())

        payload: dict[str, Any] = json.loads(json.dumps(asyncio.run(first()).payload))
        return payload

    def resume(self, event: dict[str, Any]) -> str:
        assert self.deferral is not None
        self.operator = self._operator()
        uri: str = self.operator.resume_execution(
            self.deferral.method_name, self.deferral.kwargs | {"event": event}, self.context
        )
        return uri

    def resume_with_another_pod(self) -> None:
        """What follows a disruption: the same try is deferred again."""
        with pytest.raises(TaskDeferred) as deferral:
            self.resume(self.watch())
        self.deferral = deferral.value

    def finish(self) -> str:
        """From the start to the end. Raises AirflowException as the task would."""
        if self.start().deferral is None:
            return str(self.xcom["return_value"])
        return self.resume(self.watch())


@pytest.fixture
def attempt(
    cluster: Cluster, dataset: str, base_model: str, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Attempt]]:
    """Makes tries of one job; another ``seed`` is another job, and BERT_POD_ settings go by keyword."""
    fixed = {
        "BERT_TRAINING_BACKEND": "kubernetes",
        "BERT_EARLY_STOPPING_PATIENCE": "0",
        "BERT_POD_IMAGE": "registry.example.com/trainer:1",
        "BERT_POD_ENV_SECRETS": "s3-keys",
        "BERT_POD_POLL_SECONDS": "0.2",
        "BERT_POD_LOG_SECONDS": "0.5",
        "BERT_POD_MLFLOW_TRACKING_URI": tracking_uri,
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": cluster.connection,
        "AIRFLOW_VAR_BERT_AIRFLOW_ID": "a1b2",  # there is no metadata database here
    }

    def make(seed: int, *, epochs: int = 1, run_id: str = "manual__2026-01-01", **pod: Any) -> Attempt:
        for name, value in (fixed | {f"BERT_POD_{name.upper()}": str(value) for name, value in pod.items()}).items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        params = {
            "base_model": base_model, "epochs": epochs, "learning_rate": 3e-3, "batch_size": 8, "max_length": 16,
            "seed": seed,
        }  # fmt: skip
        return Attempt(dataset, params, run_id)

    yield make
    settings.cache_clear()


def wait(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def only(cluster: Cluster) -> str:
    """The name of the one pod there is."""
    (pod,) = cluster.pods
    return str(pod["metadata"]["name"])


def training(cluster: Cluster, words: str = "step ") -> str:
    """The one pod's name, once its log has these words."""
    wait(lambda: cluster.pods and words in cluster.log(only(cluster)))
    return only(cluster)


@pytest.mark.nightly
def test_two_runs_of_one_job_share_a_pod_whose_log_is_shown_once(
    attempt: Any, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = attempt(1).start(), attempt(1, run_id="another run").start()
    with caplog.at_level(logging.INFO):
        uri = first.resume(first.watch())
    assert second.resume(second.watch()) == uri
    job_id = Result.model_validate(objects.read_json(uri)).job_id
    assert first.xcom == second.xcom == {"job_id": job_id, "return_value": uri}
    assert [pod["metadata"]["name"] for pod in cluster.created] == [f"train-{job_id}"]
    assert cluster.pods == []
    lines = [record.message for record in caplog.records if record.name.endswith("TrainingPodTrigger")]
    assert lines[-1] == uri, "the trainer prints the result's URI last"
    steps = [line for line in lines if "step " in line]
    assert steps
    assert len(steps) == len(set(steps))

    cluster.create(cluster.created[0])
    wait(lambda: cluster.pods[0]["status"]["phase"] == "Succeeded")
    assert attempt(1, run_id="a third run").finish() == uri
    assert len(cluster.created) == 2, "a job that has its result needs no pod"
    assert cluster.pods == [], "and one that ended while nobody looked goes"


def test_evicted_and_preempted_it_resumes_and_what_ends_while_nobody_looks_is_picked_up(
    attempt: Any, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    task = attempt(2, epochs=15, disruptions=2).start()
    cluster.evict(training(cluster, "uploaded"))
    with caplog.at_level(logging.WARNING, "airflow.task"):
        task.resume_with_another_pod()
    assert "was evicted by its node" in caplog.text
    assert "Another pod goes on from the last checkpoint." in caplog.text

    cluster.preempt(training(cluster, "resuming from the checkpoint"))
    task.resume_with_another_pod()

    wait(lambda: cluster.pods[0]["status"]["phase"] == "Succeeded")
    cluster.collect(only(cluster))
    result = Result.model_validate(objects.read_json(task.resume(task.watch())))
    assert result.resumed_from_step > 0
    assert len(cluster.created) == 3


def test_a_try_replaces_so_many_evicted_pods_and_no_more(attempt: Any, cluster: Cluster) -> None:
    task = attempt(3, epochs=1000, disruptions=1).start()
    cluster.evict(only(cluster))
    task.resume_with_another_pod()
    cluster.evict(only(cluster))
    with pytest.raises(AirflowException, match=r"was evicted .*ephemeral-storage.* A retry goes on"):
        task.resume(task.watch())
    assert cluster.pods == []
    assert len(cluster.created) == 2


def test_a_killed_task_deletes_its_pod(attempt: Any, cluster: Cluster) -> None:
    task = attempt(3, epochs=1000).start()
    task.operator.on_kill()
    wait(lambda: not cluster.pods, 20)
    assert "is gone" in task.watch()["message"]


def test_a_job_that_cannot_be_trained_says_why(attempt: Any, cluster: Cluster, dataset: str) -> None:
    task = attempt(5)
    task.dataset = task.operator.dataset_uri = f"{lake.root()}/datasets/nowhere/"
    with pytest.raises(AirflowException, match=r"could not train the job \(exit code 1\): .*nowhere"):
        task.finish()
    assert cluster.pods == []


def test_a_pod_that_was_left_behind_is_replaced(attempt: Any, cluster: Cluster) -> None:
    attempt(6, epochs=1000).start()
    left_behind = cluster.pods[0]["metadata"]["uid"]
    cluster.out_of_memory(only(cluster))
    wait(lambda: cluster.pods[0]["status"]["phase"] == "Failed")
    task = attempt(6, epochs=1000).start()
    assert cluster.pods[0]["metadata"]["uid"] != left_behind
    task.operator.on_kill()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unschedulable", r"found no node after 1 s .*Insufficient nvidia.com/gpu.*BERT_POD_GPUS"),
        ("image", r"cannot pull its image registry.example.com/trainer:1: .*BERT_POD_IMAGE_PULL_SECRETS"),
        ("held", r"did not start after 1 s .*ContainerCreating.*FailedMount"),
    ],
)
def test_a_pod_that_does_not_start_says_why_and_goes(attempt: Any, cluster: Cluster, fault: str, message: str) -> None:
    cluster.next_fault = fault
    with pytest.raises(AirflowException, match=message):
        attempt(7, startup_seconds=1).finish()
    assert cluster.pods == []


def test_a_queued_pod_may_wait_for_longer_than_it_may_take_to_start(
    attempt: Any, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.next_fault = "gated"
    with caplog.at_level(logging.INFO, "airflow.task"):
        task = attempt(7, startup_seconds=1).start()
    assert "it waits in the cluster's queue" in caplog.text
    threading.Timer(3, cluster.collect, [only(cluster)]).start()
    assert "is gone" in task.watch()["message"]


def test_a_missing_secret_is_named(attempt: Any, cluster: Cluster) -> None:
    with pytest.raises(AirflowException, match=r'secret "typo" not found.*BERT_POD_ENV_SECRETS'):
        attempt(7, env_secrets="typo").finish()


def test_out_of_memory_names_the_limit_and_the_setting(attempt: Any, cluster: Cluster) -> None:
    task = attempt(8, epochs=1000, memory="3Gi").start()
    cluster.out_of_memory(only(cluster))
    with pytest.raises(AirflowException, match=r"its limit is 3Gi. Raise BERT_POD_MEMORY"):
        task.resume(task.watch())


def test_a_lost_node_is_waited_for_and_never_gets_a_second_pod(attempt: Any, cluster: Cluster) -> None:
    short = {"epochs": 1000, "lost_seconds": 2, "grace_seconds": 1}
    task = attempt(9, **short).start()
    name = only(cluster)
    cluster.lose_node(name)
    with pytest.raises(AirflowException, match=r"is still being deleted: its node gpu-node-1 .*kubectl delete"):
        task.resume(task.watch())
    with pytest.raises(AirflowException, match="is still being deleted"):
        attempt(9, **short).finish()
    assert len(cluster.created) == 1
    threading.Timer(1, cluster.remove_node, [name]).start()
    assert attempt(9, **short).start().deferral is not None, "each try waits anew"
    assert len(cluster.created) == 2


def test_a_pod_that_vanished_without_a_result_is_a_case_for_a_retry(attempt: Any, cluster: Cluster) -> None:
    task = attempt(10, epochs=1000).start()
    name = only(cluster)
    cluster.evict(name)
    cluster.collect(name)
    with pytest.raises(AirflowException, match=r"is gone. A retry goes on"):
        task.resume(task.watch())


def test_the_pod_of_a_later_try_is_not_touched_by_an_earlier_one(attempt: Any, cluster: Cluster) -> None:
    slow = attempt(11, epochs=1000).start()
    cluster.evict(only(cluster))
    event = slow.watch()
    attempt(11, epochs=1000, run_id="another run").start()
    with pytest.raises(TaskDeferred):
        slow.resume(event)
    assert len(cluster.pods) == 1
    assert cluster.pods[0]["status"]["phase"] == "Running"


def test_an_outage_of_the_api_is_waited_for_but_not_for_ever(
    attempt: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncKubernetesHook.get_pod.retry, "stop", tenacity.stop_after_attempt(2))  # of 5, to save time
    cluster.failing_requests = 2
    task = attempt(12, epochs=1000, lost_seconds=1).start()
    cluster.failing_requests = 1000
    event = task.watch()
    assert event["at_work"]
    cluster.failing_requests = 0
    with pytest.raises(AirflowException, match="cannot be watched: 500"):
        task.resume(event)
    assert len(cluster.pods) == 1, "it trains on, and the next try attaches to it"
