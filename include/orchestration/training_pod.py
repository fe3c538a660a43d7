"""The pod that trains a job: what it is made of, and what its status means.

All that has to be true on a real cluster stands here, and nothing here talks to one. docs/kubernetes.md has a checklist
to try it on one in an hour. Pods are read by their attributes, so those of both Kubernetes clients will do.
"""
# ruff: noqa: TID253 - only imported where pods are, by the kubernetes backend

from datetime import UTC, datetime
from typing import Any

from airflow.providers.cncf.kubernetes.utils.container import get_container_status
from airflow.providers.cncf.kubernetes.utils.pod_manager import detect_pod_terminate_early_issues
from kubernetes.client import models as k8s

from include.settings import settings
from include.settings.pod import Pod

CONTAINER = "trainer"
COMMAND = ["python", "-m", "include.training"]  # as in include/training/Dockerfile
SCRATCH = "/scratch"
APP = {"app.kubernetes.io/name": "bert-training"}
RETRY = "A retry goes on from the last checkpoint."

# Why Kubernetes took a pod away: reasons of its condition DisruptionTarget, and of its status.
DISRUPTIONS = {
    "PreemptionByScheduler": "was preempted by a pod of higher priority; BERT_POD_PRIORITY_CLASS can raise its own",
    "Preempting": "was preempted by a more critical pod of its node",
    "DeletionByTaintManager": "was deleted because its node was lost or tainted",
    "EvictionByEvictionAPI": "was evicted because its node is being drained",
    "DeletionByPodGC": "was deleted because its node is gone",
    "TerminationByKubelet": "was ended by its node, which shuts down or runs out of a resource",
    "Terminated": "was ended because its node shuts down",
    "NodeShutdown": "was ended because its node shuts down",
    "NodeLost": "was lost with its node",
    "Evicted": "was evicted by its node; if it is the scratch volume, BERT_POD_SCRATCH is the setting",
    "DeadlineExceeded": "was stopped after BERT_POD_DEADLINE_SECONDS",
}


def pod_name(job_id: str) -> str:
    """A job's pod has one name only, so that the Kubernetes API itself refuses a second pod of the job."""
    return f"train-{job_id}"


def pod_arguments(pod: Pod) -> dict[str, Any]:
    """What KubernetesPodOperator has to be told to build the pod, but for its name and its job."""
    return {
        "image": pod.image,
        "image_pull_secrets": [k8s.V1LocalObjectReference(name) for name in pod.image_pull_secrets],
        "kubernetes_conn_id": pod.kubernetes_conn_id,
        "namespace": pod.namespace or None,
        "cmds": COMMAND,
        "base_container_name": CONTAINER,
        "container_resources": _resources(pod),
        "volumes": [
            _empty_dir("shared-memory", medium="Memory", size_limit=pod.shared_memory),
            _empty_dir("scratch", size_limit=pod.scratch),
        ],
        "volume_mounts": [
            k8s.V1VolumeMount(name="shared-memory", mount_path="/dev/shm"),
            k8s.V1VolumeMount(name="scratch", mount_path=SCRATCH),
        ],
        "env_vars": [k8s.V1EnvVar(name=name, value=value) for name, value in sorted(_environment(pod).items())],
        "env_from": [
            k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name, optional=False)) for name in pod.env_secrets
        ],
        "labels": APP | pod.labels,
        "annotations": dict(pod.annotations),
        "node_selector": dict(pod.node_selector),
        "tolerations": [dict(one) for one in pod.tolerations],
        "priority_class_name": pod.priority_class or None,
        "service_account_name": pod.service_account or None,
        "automount_service_account_token": pod.automount_token,
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=pod.run_as_user,
            fs_group=pod.run_as_user,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        "container_security_context": k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        # A service called mlflow would put MLFLOW_PORT=tcp://… into the environment.
        "full_pod_spec": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[], enable_service_links=False)),
        "termination_grace_period": pod.grace_seconds,
        # The last lines of the log stay in the pod's status, where they outlive a node's log.
        "termination_message_policy": "FallbackToLogsOnError",
        "active_deadline_seconds": pod.deadline_seconds,
    }


def _resources(pod: Pod) -> k8s.V1ResourceRequirements:
    limits = {"cpu": f"{pod.cpu:g}", "memory": pod.memory} | ({pod.gpu_resource: str(pod.gpus)} if pod.gpus else {})
    return k8s.V1ResourceRequirements(limits=limits, requests=limits | {"ephemeral-storage": pod.scratch})


def _empty_dir(name: str, **source: str) -> k8s.V1Volume:
    return k8s.V1Volume(name=name, empty_dir=k8s.V1EmptyDirVolumeSource(**source))


def _environment(pod: Pod) -> dict[str, str]:
    config = settings()
    ours = {
        "BERT_BUCKET": config.bucket,
        # What the trainer refuses again, and what it says of itself.
        "BERT_BASE_MODEL": config.base_model,
        "BERT_BASE_MODEL_BUCKETS": ",".join(config.base_model_buckets),
        "BERT_LOCAL_BASE_MODELS": str(config.local_base_models).lower(),
        "BERT_FAST": str(config.fast).lower(),
        "BERT_IMAGE": pod.image,
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "HF_HOME": f"{SCRATCH}/huggingface",
        # Of the process for each GPU: its share.
        "OMP_NUM_THREADS": str(max(1, int(pod.cpu / max(1, pod.gpus)))),
        "PYTHONUNBUFFERED": "1",
    }
    return ours | pod.environment


def is_at_work(pod: Any) -> bool:
    """Whether a pod trains or will train: it is neither over nor being deleted."""
    return not is_over(pod) and pod.metadata.deletion_timestamp is None


def is_over(pod: Any) -> bool:
    """Whether nothing runs in a pod any more."""
    return pod.status.phase in ("Succeeded", "Failed") or _terminated(pod) is not None


def has_started(pod: Any) -> bool:
    """Whether the trainer runs, or has run."""
    status = get_container_status(pod, CONTAINER)
    return status is not None and (status.state.running is not None or status.state.terminated is not None)


def is_disrupted(pod: Any) -> bool:
    """Whether Kubernetes takes a pod away for reasons that are not the pod's: eviction, preemption, a lost node.

    That is its condition DisruptionTarget, as in a Job's podFailurePolicy. It is not set where the pod broke a limit.
    """
    terminated = _terminated(pod)
    out_of_memory = terminated is not None and terminated.reason == "OOMKilled"
    return _disruption_target(pod) is not None and not out_of_memory


def is_queued(pod: Any) -> bool:
    """Whether a gate holds a pod back from the scheduler, as Kueue's does until the queue lets it go."""
    scheduled = _scheduled(pod)
    return scheduled is not None and scheduled.reason == "SchedulingGated"


def failure(pod: Any, last_line: str = "") -> str:
    """Why a pod that is over, or is about to be, failed and what to do about it; empty if it did not.

    ``last_line`` of its log is used if Kubernetes has not kept it.
    """
    terminated = _terminated(pod)
    if pod.status.phase == "Succeeded" or (terminated is not None and terminated.exit_code == 0):
        return ""
    if terminated is not None and terminated.reason == "OOMKilled":
        return (
            f"ran out of memory: its limit is {_memory(pod)}. Raise BERT_POD_MEMORY, or train with a smaller "
            f"batch_size or max_length. {RETRY}"
        )
    return disruption(pod) or (_exit(terminated, last_line) if terminated else f"failed: {_status(pod)}. {RETRY}")


def disruption(pod: Any) -> str:
    """Why Kubernetes takes a pod away; empty if it does not, or does not say."""
    found = _disruption_target(pod) or pod.status
    reason, message = found.reason, found.message
    if not reason:
        return ""
    if pod.status.reason == "Evicted":  # says more than the condition that comes with it
        reason, message = pod.status.reason, pod.status.message
    what = DISRUPTIONS.get(reason, f"was refused or ended by its node ({reason})")
    return f"{what}: {(message or 'no message').rstrip('.')}. {RETRY}"


def startup_failure(pod: Any) -> str:
    """Why a pod will not start, however long one waits; empty if it may."""
    if problem := detect_pod_terminate_early_issues(pod):
        return (
            f"cannot pull its image {_container(pod).image}: {' '.join(problem.split())}. "
            "Check BERT_POD_IMAGE, and BERT_POD_IMAGE_PULL_SECRETS for a private registry."
        )
    waiting = _waiting(pod)
    if waiting is not None and waiting.reason == "CreateContainerConfigError":
        return f"cannot start: {waiting.message}. Is there each secret that BERT_POD_ENV_SECRETS names?"
    return ""


def startup_timeout(pod: Any, seconds: float, warning: str) -> str:
    """Why a pod has not started in time; ``warning`` is its newest warning event."""
    scheduled = _scheduled(pod)
    late = f"after {seconds:.0f} s (BERT_POD_STARTUP_SECONDS)"
    if scheduled is not None and scheduled.status == "False":
        return (
            f"found no node {late}: {scheduled.message}. Add such a node, or ask for less or elsewhere: BERT_POD_GPUS, "
            "_CPU, _MEMORY, _NODE_SELECTOR, _TOLERATIONS."
        )
    waiting = _waiting(pod)
    seen = [waiting.reason, waiting.message] if waiting is not None else [pod.status.phase]
    return f"did not start {late}: {'; '.join(filter(None, [*seen, warning]))}"


def seconds_past_deletion(pod: Any) -> float:
    """How long a pod should have been gone, its grace period included; negative if it still has time."""
    deletion: datetime | None = pod.metadata.deletion_timestamp
    return (datetime.now(UTC) - deletion).total_seconds() if deletion else -1.0


def stuck(pod: Any) -> str:
    """What to do about a pod that stays though it was deleted."""
    name, namespace, node = pod.metadata.name, pod.metadata.namespace, pod.spec.node_name
    return (
        f"is still being deleted: its node {node} does not answer, and training may go on there. If the node is really "
        f"gone, delete it (kubectl delete node {node}) or the pod (kubectl delete pod -n {namespace} {name} --force), "
        f"and clear the task. {RETRY}"
    )


def _exit(terminated: Any, last_line: str) -> str:
    lines = [line for line in (terminated.message or last_line).splitlines() if line.strip()]
    said = lines[-1] if lines else terminated.reason or "it said nothing"
    match terminated.exit_code:
        case 1:
            return f"could not train the job (exit code 1): {said}"
        case 2:
            return f"did not understand its command (exit code 2): {said}. Is BERT_POD_IMAGE built from this version?"
        case 137:
            return f"was killed (exit code 137), maybe before its checkpoint: see BERT_POD_GRACE_SECONDS. {RETRY}"
        case 143 | 130:
            return f"was asked to stop and has saved a checkpoint (exit code {terminated.exit_code}). {RETRY}"
        case code:
            return f"ended with exit code {code}: {said}. {RETRY}"


def _container(pod: Any) -> Any:
    return next(one for one in pod.spec.containers if one.name == CONTAINER)


def _memory(pod: Any) -> str:
    return str(_container(pod).resources.limits["memory"])


def _scheduled(pod: Any) -> Any:
    return _condition(pod, "PodScheduled")


def _disruption_target(pod: Any) -> Any:
    found = _condition(pod, "DisruptionTarget")
    return found if found is not None and found.status == "True" else None


def _condition(pod: Any, kind: str) -> Any:
    return next((one for one in pod.status.conditions or [] if one.type == kind), None)


def _status(pod: Any) -> str:
    return pod.status.message or pod.status.reason or f"phase {pod.status.phase}"


def _terminated(pod: Any) -> Any:
    status = get_container_status(pod, CONTAINER)
    return status.state.terminated if status else None


def _waiting(pod: Any) -> Any:
    status = get_container_status(pod, CONTAINER)
    return status.state.waiting if status else None
