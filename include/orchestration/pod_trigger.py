"""Watches a training pod from the triggerer, and copies its log to the task's."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

from airflow.exceptions import AirflowException
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.triggers.base import TriggerEvent
from airflow.utils.state import State

from include.orchestration import training_pod

CLOCK_SKEW_SECONDS = 60  # between the triggerer and a node


class TrainingPodTrigger(KubernetesPodTrigger):
    """Fires once, when a pod is over, gone or given up.

    The event says why the pod failed (``message``, empty if it did not), whether anything may still run in it
    (``at_work``) and whether Kubernetes has taken it away (``disrupted``). Cancelled because the task was marked failed
    or successful, or its run was deleted, it deletes the pod; cancelled because the triggerer stops or the task was
    cleared, it does not: the next trigger watches it. What a trigger misses that had not begun, pod_cleanup deletes.

    Args:
        pod_name: Of the pod to watch.
        pod_namespace: Its namespace.
        uid: Of that very pod; one of the same name is another one.
        kubernetes_conn_id: How to reach the cluster.
        in_cluster: Whether Airflow runs in it.
        startup_seconds: How long the pod may take to start, from when this trigger begins to watch it; time behind a
            scheduling gate does not count.
        lost_seconds: How long a silent node or Kubernetes API is waited for.
        grace_seconds: What the pod gets for its last checkpoint.
        poll_seconds: How often the pod is looked at.
        log_seconds: How often its log is read.
    """

    def __init__(
        self,
        *,
        pod_name: str,
        pod_namespace: str,
        uid: str,
        kubernetes_conn_id: str,
        in_cluster: bool,
        startup_seconds: float,
        lost_seconds: float,
        grace_seconds: int,
        poll_seconds: float,
        log_seconds: float,
    ) -> None:
        super().__init__(
            pod_name=pod_name,
            pod_namespace=pod_namespace,
            trigger_start_time=datetime.now(UTC),
            base_container_name=training_pod.CONTAINER,
            kubernetes_conn_id=kubernetes_conn_id,
            in_cluster=in_cluster,
            termination_grace_period=grace_seconds,
        )
        self.arguments = {
            "pod_name": pod_name,
            "pod_namespace": pod_namespace,
            "uid": uid,
            "kubernetes_conn_id": kubernetes_conn_id,
            "in_cluster": in_cluster,
            "startup_seconds": startup_seconds,
            "lost_seconds": lost_seconds,
            "grace_seconds": grace_seconds,
            "poll_seconds": poll_seconds,
            "log_seconds": log_seconds,
        }
        self.uid = uid
        self.startup_seconds = startup_seconds
        self.lost_seconds = lost_seconds
        self.poll_seconds = poll_seconds
        self.log_seconds = log_seconds
        self._may_start_since = time.monotonic()
        self._log_read = 0.0
        self._logged_until = ""  # the time stamp of the last line in the task's log
        self._last_line = ""
        self._disruption = ""  # why Kubernetes takes the pod away, which it says before the pod is gone
        self._disrupted = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, for the metadata database; no credential among them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watches until there is something to say."""
        event = await self._watch()
        self._fired_event = True  # from here on the pod is the task's, not the trigger's
        yield TriggerEvent(event)

    async def safe_to_cancel(self) -> bool:
        """Whether nobody waits for the pod any more. A cleared task's next try does."""
        try:
            return await self.get_task_state() in State.finished
        except AirflowException:  # the run was deleted
            return True

    async def _watch(self) -> dict[str, Any]:
        answered = time.monotonic()
        while True:
            try:
                pod = await self.hook.get_pod(self.pod_name, self.pod_namespace)
                answered = time.monotonic()
            except Exception as error:  # of many kinds: HTTP, connection, credentials
                if getattr(error, "status", None) == 404:
                    message = self._disruption or f"is gone. {training_pod.RETRY}"
                    return self._event(message, disrupted=self._disrupted)
                if time.monotonic() - answered > self.lost_seconds:
                    return self._event(f"cannot be watched: {_short(error)}", at_work=True)
                self.log.warning("cannot read pod %s: %s; trying again", self.pod_name, _short(error))
            else:
                verdict = await self._verdict(pod)
                if verdict is not None:
                    return self._event(verdict, disrupted=self._disrupted and training_pod.is_over(pod))
            await asyncio.sleep(self.poll_seconds)

    async def _verdict(self, pod: Any) -> str | None:
        """None while the pod goes on; then why it failed or is given up, empty if it did not fail."""
        if pod.metadata.uid != self.uid:
            return f"was replaced by another one of the same job. {training_pod.RETRY}"
        self._disruption = training_pod.disruption(pod)
        self._disrupted = training_pod.is_disrupted(pod)
        over = training_pod.is_over(pod)
        if over or pod.metadata.deletion_timestamp or time.monotonic() > self._log_read + self.log_seconds:
            await self._copy_log(pod)
        if over:
            return training_pod.failure(pod, self._last_line)
        if training_pod.seconds_past_deletion(pod) > self.lost_seconds:
            return training_pod.stuck(pod)
        if training_pod.has_started(pod):
            return None
        if training_pod.is_queued(pod):
            self._may_start_since = time.monotonic()
        if time.monotonic() > self._may_start_since + self.startup_seconds:
            return training_pod.startup_timeout(pod, self.startup_seconds, await self._newest_warning())
        return training_pod.startup_failure(pod) or None

    async def _newest_warning(self) -> str:
        try:
            found = await self.hook.get_pod_events(self.pod_name, self.pod_namespace)
        except Exception as error:  # the role may not allow it; the pod's own status has to do
            self.log.info("cannot read the pod's events: %s", _short(error))
            return ""
        warnings = [event for event in found.items if event.type == "Warning"]
        newest = max(
            warnings, key=lambda event: event.last_timestamp or event.metadata.creation_timestamp, default=None
        )
        return f"{newest.reason}: {newest.message}" if newest else ""

    async def _copy_log(self, pod: Any) -> None:
        """Writes the lines that are new since the last time."""
        self._log_read = time.monotonic()
        if not training_pod.has_started(pod):
            return
        try:
            lines = await self.hook.read_logs(
                self.pod_name, self.pod_namespace, self.base_container_name, _seconds_since(self._logged_until)
            )
        except Exception as error:  # of many kinds; the next time the lines are there again
            self.log.warning("cannot read the log of pod %s: %s", self.pod_name, _short(error))
            return
        for stamp, line in new_lines(lines, self._logged_until):
            self.log.info("%s", line)
            self._logged_until, self._last_line = stamp, line

    def _event(self, message: str, *, at_work: bool = False, disrupted: bool = False) -> dict[str, Any]:
        named = message and f"pod {self.pod_namespace}/{self.pod_name} {message}"
        return {"uid": self.uid, "message": named, "at_work": at_work, "disrupted": disrupted}


def new_lines(lines: Iterable[str], after: str) -> list[tuple[str, str]]:
    """The time stamps and texts of those lines of a pod's log that are younger than a time stamp.

    A node writes all its stamps with nine decimals and the same offset, so they can be compared as they are.
    """
    found = (line.rstrip("\n").partition(" ") for line in lines)
    return [(stamp, text) for stamp, _, text in found if stamp > after]


def _seconds_since(stamp: str) -> int | None:
    if not stamp:
        return None
    age = datetime.now(UTC) - datetime.fromisoformat(stamp)
    return max(1, math.ceil(age.total_seconds()) + CLOCK_SKEW_SECONDS)


def _short(error: Exception) -> str:
    """An API error without its headers and body."""
    reason = getattr(error, "reason", None)
    return f"{getattr(error, 'status', '')} {reason}".strip() if reason else f"{type(error).__name__}: {error}"
