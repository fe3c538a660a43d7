"""What a pod's status means, in words; the trigger's small decisions."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from kubernetes.client import models as k8s

from include.orchestration import training_pod
from include.orchestration.pod_trigger import TrainingPodTrigger, new_lines


def pod(
    phase: str = "Failed", *, disruption: str = "", deleted: datetime | None = None, status: Any = None, **state: Any
) -> k8s.V1Pod:
    """A pod as the API shows it; ``state`` is its container's, ``status`` more of the pod's own."""
    container = k8s.V1Container(
        name="trainer", image="trainer:1", resources=k8s.V1ResourceRequirements(limits={"memory": "16Gi"})
    )
    running = k8s.V1ContainerStatus(
        name="trainer",
        image="trainer:1",
        image_id="",
        ready=False,
        restart_count=0,
        state=k8s.V1ContainerState(**state),
    )
    condition = k8s.V1PodCondition(type="DisruptionTarget", status="True", reason=disruption, message="because")
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="train-1", namespace="training", uid="1", deletion_timestamp=deleted),
        spec=k8s.V1PodSpec(containers=[container], node_name="gpu-1"),
        status=k8s.V1PodStatus(
            phase=phase,
            conditions=[condition] if disruption else None,
            container_statuses=[running] if state else None,
            **(status or {}),
        ),
    )


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": k8s.V1ContainerStateTerminated(exit_code=code, reason=reason, message=message)}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            pod(**ended(1, message="INFO start\nERROR no dataset at s3://b/d\n")),
            "exit code 1): ERROR no dataset at s3://b",
        ),
        (pod(**ended(2, message="error: unrecognized arguments")), "Is BERT_POD_IMAGE built from this version?"),
        (pod(**ended(3, "ContainerCannotRun", "no such file")), "ended with exit code 3: no such file"),
        (pod(**ended(137)), "see BERT_POD_GRACE_SECONDS"),
        (pod(**ended(137, "OOMKilled")), "its limit is 16Gi. Raise BERT_POD_MEMORY"),
        (pod(**ended(143)), "has saved a checkpoint (exit code 143). A retry goes on"),
        (pod(**ended(143), disruption="PreemptionByScheduler"), "BERT_POD_PRIORITY_CLASS"),
        (pod(**ended(143), disruption="EvictionByEvictionAPI"), "its node is being drained: because"),
        (pod(disruption="DeletionByTaintManager"), "its node was lost or tainted"),
        (
            pod(disruption="TerminationByKubelet", status={"reason": "Evicted", "message": "low on disk."}),
            "low on disk. A",
        ),
        (pod(**ended(137), status={"reason": "DeadlineExceeded"}), "BERT_POD_DEADLINE_SECONDS"),
        (pod(status={"reason": "UnexpectedAdmissionError", "message": "no GPU"}), "(UnexpectedAdmissionError): no GPU"),
        (pod(), "failed: phase Failed"),
    ],
)
def test_a_failure_says_what_it_was_and_what_to_do(found: k8s.V1Pod, words: str) -> None:
    assert words in training_pod.failure(found)


def test_a_pod_that_did_its_job_has_no_failure() -> None:
    assert training_pod.failure(pod("Succeeded")) == training_pod.failure(pod("Running", **ended(0, "Completed"))) == ""


def test_the_last_line_read_of_the_log_stands_in_for_the_one_kubernetes_kept() -> None:
    assert training_pod.failure(pod(**ended(1)), last_line="no label column").endswith("no label column")


@pytest.mark.parametrize(
    ("found", "disrupted"),
    [
        (pod(**ended(143), disruption="EvictionByEvictionAPI"), True),
        (pod(disruption="DeletionByTaintManager"), True),
        (pod(**ended(143)), False),  # deleted by somebody, who may have a reason
        (pod(**ended(1)), False),
        (pod(**ended(137, "OOMKilled"), disruption="TerminationByKubelet"), False),
        (pod(status={"reason": "Evicted", "message": 'EmptyDir volume "scratch" exceeds the limit'}), False),
        (pod(**ended(137), status={"reason": "DeadlineExceeded"}), False),
    ],
)
def test_only_what_is_not_the_pods_own_fault_is_a_disruption(found: k8s.V1Pod, disrupted: bool) -> None:
    assert training_pod.is_disrupted(found) is disrupted


def test_a_pod_is_at_work_until_it_is_over_or_being_deleted() -> None:
    running = {"running": k8s.V1ContainerStateRunning()}
    assert training_pod.is_at_work(pod("Pending"))
    assert training_pod.is_at_work(pod("Running", **running))
    assert not training_pod.is_at_work(pod("Running", deleted=datetime.now(UTC), **running))
    assert not training_pod.is_at_work(pod("Failed"))
    assert not training_pod.is_at_work(pod("Running", **ended(0)))


def test_grace_time_is_not_counted_as_stuck() -> None:
    now = datetime.now(UTC)
    assert training_pod.seconds_past_deletion(pod("Running")) < 0
    assert training_pod.seconds_past_deletion(pod("Running", deleted=now + timedelta(seconds=60))) < 0
    assert training_pod.seconds_past_deletion(pod("Running", deleted=now - timedelta(seconds=60))) >= 60


def test_a_line_of_the_log_is_copied_once() -> None:
    log = [
        "2026-11-20T10:00:00.000000001Z a\n",
        "2026-11-20T10:00:00.000000002Z b c",
        "2026-11-20T10:00:01.000000000Z ",
    ]
    first = new_lines(log[:2], "")
    assert [text for _, text in first] == ["a", "b c"]
    assert new_lines(log, first[-1][0]) == [("2026-11-20T10:00:01.000000000Z", "")]


@pytest.mark.parametrize(
    ("state", "nobody_waits"),
    [
        ("deferred", False),  # the triggerer stops
        (None, False),  # cleared: the next try attaches to the pod
        ("queued", False),
        ("running", False),
        ("up_for_retry", False),
        ("failed", True),
        ("success", True),
        ("skipped", True),
    ],
)
def test_a_cancelled_trigger_deletes_the_pod_only_if_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, state: str | None, nobody_waits: bool
) -> None:
    async def current(_: Any) -> str | None:
        return state

    monkeypatch.setattr(TrainingPodTrigger, "get_task_state", current)
    assert asyncio.run(trigger().safe_to_cancel()) is nobody_waits


def test_the_pod_of_a_deleted_run_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def current(_: Any) -> str | None:
        raise AirflowException("TaskInstance is not found")

    monkeypatch.setattr(TrainingPodTrigger, "get_task_state", current)
    assert asyncio.run(trigger().safe_to_cancel())


def test_time_behind_a_scheduling_gate_is_not_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_warning(_: Any) -> str:
        return ""

    monkeypatch.setattr(TrainingPodTrigger, "_newest_warning", no_warning)
    gated, unschedulable = pod("Pending"), pod("Pending")
    gated.status.conditions = [k8s.V1PodCondition(type="PodScheduled", status="False", reason="SchedulingGated")]
    unschedulable.status.conditions = [k8s.V1PodCondition(type="PodScheduled", status="False", reason="Unschedulable")]
    watching = trigger(startup_seconds=0.2)
    assert asyncio.run(watching._verdict(gated)) is None
    time.sleep(0.25)
    assert asyncio.run(watching._verdict(gated)) is None
    assert asyncio.run(watching._verdict(unschedulable)) is None, "its time begins when the gate opens"
    time.sleep(0.25)
    assert "found no node" in str(asyncio.run(watching._verdict(unschedulable)))


def trigger(startup_seconds: float = 1) -> TrainingPodTrigger:
    return TrainingPodTrigger(
        pod_name="train-1", pod_namespace="training", uid="1", kubernetes_conn_id="k", in_cluster=False,
        startup_seconds=startup_seconds, lost_seconds=1, grace_seconds=1, poll_seconds=1, log_seconds=1,
    )  # fmt: skip
