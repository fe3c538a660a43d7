"""Training in pods through the whole stack: a real scheduler, triggerer, worker and trainer; only the cluster is not.

The tests share one stack and one cluster, and each starts from what the one before left.
"""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from dev import sample_data
from dev.observe import OVER, PIPELINE, Observer
from dev.stack import Stack
from tests.pods_api import TOKEN, Cluster
from tests.scenarios.conftest import fresh_stack, wait

pytestmark = pytest.mark.timeout(1200)

KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster().running() as cluster:
        cluster.secrets["s3-keys"] = KEYS
        yield cluster


@pytest.fixture(scope="module")
def stack(cluster: Cluster) -> Iterator[Stack]:
    settings = {
        "BERT_TRAINING_BACKEND": "kubernetes",
        "BERT_POD_IMAGE": "registry.example.com/trainer:1",
        "BERT_POD_ENV_SECRETS": "s3-keys",
        "BERT_POD_POLL_SECONDS": "1",
        "BERT_POD_LOG_SECONDS": "2",
        "BERT_UPLOAD_SETTLE_SECONDS": "0",
        "BERT_EPOCHS": "3",
        "BERT_EARLY_STOPPING_PATIENCE": "0",
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": cluster.connection,
    }
    with fresh_stack(settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def seen(stack: Stack) -> Observer:
    return Observer(stack)


def pod_that_says(cluster: Cluster, words: str) -> str:
    """The name of the one pod there is, once its log has these words."""
    wait(lambda: any(words in cluster.log(pod["metadata"]["name"]) for pod in cluster.pods), f"pod that says {words!r}")
    (pod,) = cluster.pods
    return str(pod["metadata"]["name"])


def task(stack: Stack, run_id: str) -> dict[str, Any]:
    answer = stack.airflow.get(f"dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/train_model")
    instance: dict[str, Any] = answer.raise_for_status().json()
    return instance


def log(stack: Stack, run_id: str, attempt: int) -> str:
    path = f"dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/train_model/logs/{attempt}"
    return stack.airflow.get(path, headers={"Accept": "text/plain"}).raise_for_status().text


def test_an_upload_becomes_the_champion_though_its_pod_is_evicted_and_airflow_killed(
    stack: Stack, cluster: Cluster, seen: Observer
) -> None:
    rows = sample_data.messages(300).to_csv(index=False).encode()
    seen.s3.put_object(Bucket=seen.bucket, Key="incoming/messages.csv", Body=rows)
    run_id = seen.new_run(set())
    cluster.evict(pod_that_says(cluster, "uploaded in"))
    pod_that_says(cluster, "resuming from the checkpoint")
    for name in ("triggerer", "scheduler"):
        os.kill(stack.pids()[name], signal.SIGKILL)

    wait(lambda: seen.run(run_id)["state"] in OVER, "end of the run", 400)
    report = seen.report(run_id)
    assert report["outcome"] == "promoted", report["reason"]
    assert len(cluster.created) == 2
    assert cluster.pods == []
    assert task(stack, run_id)["try_number"] == 1, "an eviction costs no try"
    assert "was evicted by its node" in log(stack, run_id, 1)
    assert "epoch 3/3 done" in log(stack, run_id, 1), "the trigger copied the pod's log"


def test_a_cleared_task_keeps_its_pod_and_a_failed_one_does_not(stack: Stack, cluster: Cluster, seen: Observer) -> None:
    started = stack.airflow.post(f"dags/{PIPELINE}/dagRuns", json={"conf": {"epochs": 900, "seed": 1}})
    run_id = started.raise_for_status().json()["dag_run_id"]
    name = pod_that_says(cluster, "epoch 1/900 step")
    wait(lambda: task(stack, run_id)["state"] == "deferred", "deferred task")
    clear = {"dry_run": False, "task_ids": ["train_model"], "dag_run_id": run_id, "only_failed": False}
    stack.airflow.post(f"dags/{PIPELINE}/clearTaskInstances", json=clear).raise_for_status()
    wait(lambda: (now := task(stack, run_id))["try_number"] == 2 and now["state"] == "deferred", "second try")
    assert len(cluster.created) == 3
    assert "is at work on this job" in log(stack, run_id, 2)

    path = f"dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/train_model"
    stack.airflow.patch(path, json={"dry_run": False, "new_state": "failed"}).raise_for_status()
    wait(lambda: not cluster.pods, "end of the pod", 60)
    checkpoints = seen.keys(f"jobs/{name.removeprefix('train-')}/checkpoints/")
    assert any(key.endswith("complete.json") for key in checkpoints), "it had the time to save what it had learnt"


def test_no_credential_is_in_a_pod_or_a_log(stack: Stack, cluster: Cluster) -> None:
    logs = "".join(file.read_text(errors="replace") for file in stack.state.logs.rglob("*") if file.is_file())
    assert TOKEN not in str(cluster.created) + logs
