"""The task that trains in a Kubernetes pod."""
# ruff: noqa: TID253 - only imported by the kubernetes backend; its base class imports the client anyway

import logging
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import tenacity
from airflow.exceptions import AirflowException
from airflow.models import Variable
from airflow.models.xcom import XCOM_RETURN_KEY
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import ApiException, models
from urllib3.exceptions import HTTPError

from include import lake, objects
from include.orchestration import training_pod
from include.orchestration.pod_trigger import TrainingPodTrigger
from include.orchestration.submission import job_of
from include.settings import settings
from include.training.job import Job

logger = logging.getLogger(__name__)

JOB_ID = "job_id"
"""The label by which a job's pod is known, and the XCom by which the tasks that wait for it are."""


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, HTTPError) or getattr(error, "status", None) in (429, 500, 502, 503, 504)


# Not the provider's own retry, for which 409 is passing too: here it is an answer.
patiently = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_passing),
    wait=tenacity.wait_exponential(max=10),
    stop=tenacity.stop_after_delay(60),
    before_sleep=tenacity.before_sleep_log(logger, logging.WARNING),
    reraise=True,
)


def airflow_id() -> str:
    """What the pods of this Airflow are labelled with, so that no other one in the namespace takes them for its own."""
    label = Variable.setdefault("bert_airflow_id", uuid.uuid4().hex, "Label airflow_id of this Airflow's training pods")
    return str(label)


class PodTraining(KubernetesPodOperator):
    """Runs the trainer in a pod, deferred while it trains; returns the URI of the trainer's result.json.

    A job has one pod at most, whoever asks for it: a try finds its predecessor's pod, or another run's of the same job,
    and waits for that one; one that is over is replaced, and so is one that Kubernetes took away. The result is read
    from S3 only. A pod goes as soon as nobody waits for it, whatever ``on_finish_action`` says.
    """

    execution_timeout: timedelta | None
    template_fields: Sequence[str] = (*KubernetesPodOperator.template_fields, "dataset_uri", "job_uri")

    def __init__(self, *, dataset_uri: str, job_uri: str = "", **kwargs: Any) -> None:
        config = settings()
        self.config = config.pod.of(config.model_name)
        arguments = training_pod.pod_arguments(self.config)
        super().__init__(**(arguments | {"deferrable": True, "random_name_suffix": False} | kwargs))
        self.dataset_uri = dataset_uri
        self.job_uri = job_uri
        if self.execution_timeout:
            # Airflow's own way would fail the deferred task and leave the pod.
            self.active_deadline_seconds = int(self.execution_timeout.total_seconds())
            self.execution_timeout = None

    def execute(self, context: Any) -> str:
        """Submits the job and defers until its pod is over, if it has no result yet."""
        tracking_uri = self.config.mlflow_tracking_uri or settings().mlflow_tracking_uri
        if self.job_uri:
            job = Job.model_validate(objects.read_json(self.job_uri)).model_copy(
                update={"mlflow_tracking_uri": tracking_uri}
            )
        else:
            job = job_of(context, self.task_id, self.dataset_uri, tracking_uri, image=self.image, in_pod=True)
        context["ti"].xcom_push(key=JOB_ID, value=job.job_id)  # first: there is never a pod without a waiter
        if not objects.exists(lake.job(job.job_id, "result.json")):
            job.submit()
        return self._train(context, job.job_id, disruptions=0)

    def pod_of(self, context: Any, job_id: str) -> Any:
        """A job's pod, as it is asked for."""
        self.name = training_pod.pod_name(job_id)
        self.arguments = [lake.job(job_id, "job.json")]
        self.labels |= {JOB_ID: job_id, "airflow_id": airflow_id()}
        self.annotations |= {"run_id": context["run_id"]}  # the label of this name had to be shortened
        return self.build_pod_request_obj(context)

    def resume(self, context: Any, event: dict[str, Any], job_id: str, pod_namespace: str, disruptions: int) -> str:
        """What comes after the pod: the result, another pod if this one was taken away, or a failure that says why."""
        result_uri = lake.job(job_id, "result.json")
        self.pod = self._read(training_pod.pod_name(job_id), pod_namespace)
        replaced = self.pod is not None and self.pod.metadata.uid != event["uid"]
        if self.pod is not None and not replaced and not event["at_work"]:
            self.delete(self.pod)
        if objects.exists(result_uri):
            return self._done(context, result_uri)
        if replaced and training_pod.is_at_work(self.pod):
            self.log.info("another run has started the job's pod anew")
            return self._wait(job_id, disruptions)
        if event["disrupted"] and disruptions < self.config.disruptions:
            lost = event["message"].removesuffix(training_pod.RETRY)
            self.log.warning("%sAnother pod goes on from the last checkpoint.", lost)
            return self._train(context, job_id, disruptions + 1)
        raise AirflowException(
            event["message"] or f"the pod ended well, but there is no {result_uri}. {training_pod.RETRY}"
        )

    def on_kill(self) -> None:
        """Deletes the pod; the trainer has its grace period for a last checkpoint."""
        if self.pod is not None:
            self.delete(self.pod)

    def pods(self) -> list[Any]:
        """All pods that this Airflow has asked for, whatever task it was."""
        namespace = self.namespace or self.hook.get_namespace() or self._incluster_namespace or "default"
        try:
            found: list[Any] = self._list(namespace, f"airflow_id={airflow_id()}")
        except ApiException as error:
            raise AirflowException(
                f"the Kubernetes API refuses the list of pods: {error.status} {error.body}"
            ) from error
        return found

    @patiently
    def delete(self, pod: Any) -> None:
        """Deletes this pod, not a later one of the same name; it may be gone already."""
        this_one = models.V1Preconditions(uid=pod.metadata.uid)
        options = models.V1DeleteOptions(grace_period_seconds=self.config.grace_seconds, preconditions=this_one)
        try:
            self.client.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, body=options)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    def _train(self, context: Any, job_id: str, disruptions: int) -> str:
        result_uri = lake.job(job_id, "result.json")
        self.pod = self._attach_or_create(self.pod_of(context, job_id), result_uri)
        return self._wait(job_id, disruptions) if self.pod is not None else self._done(context, result_uri)

    def _wait(self, job_id: str, disruptions: int) -> str:
        if training_pod.is_queued(self.pod):
            self.log.info("it waits in the cluster's queue, behind a scheduling gate")
        pod = self.pod.metadata
        trigger = TrainingPodTrigger(
            pod_name=pod.name,
            pod_namespace=pod.namespace,
            uid=pod.uid,
            kubernetes_conn_id=self.kubernetes_conn_id,
            in_cluster=self.hook.is_in_cluster,
            startup_seconds=self.config.startup_seconds,
            lost_seconds=self.config.lost_seconds,
            grace_seconds=self.config.grace_seconds,
            poll_seconds=self.config.poll_seconds,
            log_seconds=self.config.log_seconds,
        )
        known = {"job_id": job_id, "pod_namespace": pod.namespace, "disruptions": disruptions}
        self.defer(trigger=trigger, method_name="resume", kwargs=known)
        raise AssertionError("defer always raises")

    def _done(self, context: Any, result_uri: str) -> str:
        # do_xcom_push would mean a sidecar in the pod here, so Airflow is not told to push what is returned.
        context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=result_uri)
        return result_uri

    def _attach_or_create(self, request: Any, result_uri: str) -> Any:
        """The job's one pod at work, or None if the job has its result.

        Raises AirflowException if an old pod does not go, which every try waits for anew, or if the Kubernetes API
        refuses the new one.
        """
        name, namespace = request.metadata.name, request.metadata.namespace
        deadline = time.monotonic() + self.config.lost_seconds
        while not objects.exists(result_uri):
            if (created := self._create(request)) is not None:
                self.log.info("created pod %s/%s", namespace, name)
                return created
            there = self._read(name, namespace)
            if there is None:
                if time.monotonic() > deadline:
                    raise AirflowException(f"pod {namespace}/{name} cannot be created: 409, though there is none")
            elif training_pod.is_at_work(there):
                self.log.info("pod %s/%s of run %s is at work on this job", namespace, name, _run_of(there))
                return there
            elif training_pod.seconds_past_deletion(there) > self.config.lost_seconds and time.monotonic() > deadline:
                raise AirflowException(f"pod {namespace}/{name} {training_pod.stuck(there)}")
            elif there.metadata.deletion_timestamp is None:
                why = training_pod.failure(there) or "ended without a result"
                self.log.info("replacing pod %s/%s, which %s", namespace, name, why)
                self.delete(there)
            time.sleep(1)
        self.log.info("the job has its result already")
        left_behind = self._read(name, namespace)
        if left_behind is not None and training_pod.is_over(left_behind):
            self.delete(left_behind)
        return None

    @patiently
    def _create(self, request: Any) -> Any:
        """The new pod; None if there is one of this name."""
        try:
            return self.client.create_namespaced_pod(request.metadata.namespace, request)
        except ApiException as error:
            if error.status == 409:
                return None
            if _is_passing(error):
                raise
            raise AirflowException(f"the Kubernetes API refuses the pod: {error.status} {error.body}") from error

    @patiently
    def _read(self, name: str, namespace: str) -> Any:
        """A pod, None if it is gone."""
        try:
            return self.hook.get_pod(name, namespace)
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    @patiently
    def _list(self, namespace: str, label_selector: str) -> Any:
        return self.client.list_namespaced_pod(namespace, label_selector=label_selector).items


def _run_of(pod: Any) -> str:
    return str((pod.metadata.annotations or {}).get("run_id"))
