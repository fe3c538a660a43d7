"""Training in pods through the whole stack: a real scheduler, triggerer, worker and trainer; only the cluster is not.

The tests share one stack and one cluster, and each starts from what the one before left.
"""

import ast
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

pytestmark = [pytest.mark.timeout(1200), pytest.mark.nightly]

CLEANUP = "training_pod_cleanup"
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster().running() as cluster:
        cluster.secrets["s3-keys"] = KEYS
        yield cluster


@pytest.fixture(scope="module")
def stack(cluster: Cluster, small_bert: dict[str, str]) -> Iterator[Stack]:
    settings = small_bert | {
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


@pytest.fixture(scope="module")
def long_run(stack: Stack) -> str:
    """A run that trains until it is stopped."""
    started = stack.airflow.post(f"dags/{PIPELINE}/dagRuns", json={"conf": {"epochs": 900, "seed": 1}})
    return str(started.raise_for_status().json()["dag_run_id"])


def pod_that_says(cluster: Cluster, words: str) -> str:
    """The name of the one pod there is, once its log has these words."""
    wait(lambda: any(words in cluster.log(pod["metadata"]["name"]) for pod in cluster.pods), f"pod that says {words!r}")
    (pod,) = cluster.pods
    return str(pod["metadata"]["name"])


def wait_until_gone(cluster: Cluster) -> None:
    """Raises TimeoutError with what the pod was about; it may take its grace period, 120 s."""
    try:
        wait(lambda: not cluster.pods, "end of the pod")
    except TimeoutError as error:
        metadata = cluster.pods[0]["metadata"]
        error.add_note(f"to be deleted by {metadata.get('deletionTimestamp')}\n{cluster.log(metadata['name'])[-2000:]}")
        raise


def task(stack: Stack, run_id: str) -> dict[str, Any]:
    answer = stack.airflow.get(f"dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/train_model")
    instance: dict[str, Any] = answer.raise_for_status().json()
    return instance


def clear(stack: Stack, run_id: str) -> None:
    body = {
        "dry_run": False, "task_ids": ["train_model"], "dag_run_id": run_id, "only_failed": False,
        "include_downstream": True, "reset_dag_runs": True,
    }  # fmt: skip
    stack.airflow.post(f"dags/{PIPELINE}/clearTaskInstances", json=body).raise_for_status()


def mark_failed(stack: Stack, run_id: str) -> None:
    path = f"dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/train_model"
    stack.airflow.patch(path, json={"dry_run": False, "new_state": "failed"}).raise_for_status()


def log(stack: Stack, run_id: str, attempt: int) -> str:
    path = f"dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/train_model/logs/{attempt}"
    return stack.airflow.get(path, headers={"Accept": "text/plain"}).raise_for_status().text


def wait_until_watched(stack: Stack, run_id: str, attempt: int) -> None:
    """Until the try is deferred and its trigger has begun: Airflow drops one that has not if its task is over."""
    wait(lambda: (now := task(stack, run_id))["try_number"] == attempt and now["state"] == "deferred", "deferred task")
    wait(lambda: " step " in log(stack, run_id, attempt), "line of the pod in the task's log")


def clean_up(stack: Stack) -> dict[str, int]:
    """Runs the cleanup as a user would; returns its account."""
    started = stack.airflow.post(f"dags/{CLEANUP}/dagRuns", json={}).raise_for_status()
    path = f"dags/{CLEANUP}/dagRuns/{started.json()['dag_run_id']}"
    state = wait(lambda: (s := stack.airflow.get(path).json()["state"]) in OVER and s, "end of the cleanup")
    assert state == "success"
    answer = stack.airflow.get(f"{path}/taskInstances/delete_pods/xcomEntries/return_value").raise_for_status()
    account: dict[str, int] = ast.literal_eval(answer.json()["value"])
    return account


def heartbeat(stack: Stack) -> str:
    return str(stack.airflow.get("health").raise_for_status().json()["triggerer"]["latest_triggerer_heartbeat"])


def complete_checkpoints(seen: Observer, pod: str) -> list[str]:
    keys = seen.keys(f"jobs/{pod.removeprefix('train-')}/checkpoints/")
    return [key for key in keys if key.endswith("complete.json")]


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


def test_a_cleared_task_keeps_its_pod_and_a_failed_one_does_not(
    stack: Stack, cluster: Cluster, seen: Observer, long_run: str
) -> None:
    pod = pod_that_says(cluster, "epoch 1/900 step")
    wait_until_watched(stack, long_run, 1)
    clear(stack, long_run)
    wait_until_watched(stack, long_run, 2)
    assert len(cluster.created) == 3
    assert "is at work on this job" in log(stack, long_run, 2)

    mark_failed(stack, long_run)
    wait_until_gone(cluster)
    assert complete_checkpoints(seen, pod), "it had the time to save what it had learnt"


def test_a_pod_that_no_trigger_has_deleted_is_cleaned_up_and_one_that_is_waited_for_is_not(
    stack: Stack, cluster: Cluster, seen: Observer, long_run: str
) -> None:
    clear(stack, long_run)
    pod = pod_that_says(cluster, "resuming from the checkpoint")
    wait(lambda: task(stack, long_run)["state"] == "deferred", "deferred task")
    assert clean_up(stack) == {"deleted": 0, "kept": 1}
    stack.airflow.patch(f"dags/{CLEANUP}", json={"is_paused": True}).raise_for_status()

    triggerer = stack.pids()["triggerer"]
    os.kill(triggerer, signal.SIGSTOP)
    mark_failed(stack, long_run)
    last_beat = heartbeat(stack)
    os.kill(triggerer, signal.SIGKILL)
    wait(lambda: heartbeat(stack) != last_beat, "new triggerer")
    (there,) = (one["metadata"] for one in cluster.pods)
    assert there["name"] == pod
    assert "deletionTimestamp" not in there
    before = complete_checkpoints(seen, pod)

    stack.airflow.patch(f"dags/{CLEANUP}", json={"is_paused": False}).raise_for_status()
    clean_up(stack)
    wait_until_gone(cluster)
    assert complete_checkpoints(seen, pod) != before, "it had the time to save what it had learnt"
    logs = "".join(file.read_text() for file in stack.state.logs.rglob(f"dag_id={CLEANUP}/**/*.log"))
    assert f"deleting pod {pod} (Running, made by run {long_run}): no task waits for it" in logs


def test_no_credential_is_in_a_pod_or_a_log(stack: Stack, cluster: Cluster) -> None:
    logs = "".join(file.read_text(errors="replace") for file in stack.state.logs.rglob("*") if file.is_file())
    assert TOKEN not in str(cluster.created) + logs
