"""The settings of training pods: ``BERT_POD_`` and the field's name."""

import os
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.settings.detection import is_credential
from include.settings.types import Names, Quantity, TrackingUri, split


class Pod(BaseModel):
    """The pod that a job is trained in."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Where it runs.
    image: str = Field("", description="the trainer's image, by tag or digest; the kubernetes backend needs it")
    image_pull_secrets: Names = Field((), description="names of Kubernetes secrets, comma-separated")
    kubernetes_conn_id: str = Field(
        "kubernetes_default",
        description="Airflow connection to the cluster; if there is none of this name: Airflow's own cluster",
    )
    namespace: str = Field("", description="empty: the connection's, else Airflow's own, else default")
    service_account: str = Field("", description="for workload identity; empty: the namespace's default")
    automount_token: bool = Field(False, description="give the pod a token for the Kubernetes API; training needs none")
    node_selector: dict[str, str] = Field(
        {}, description='for example {"node.kubernetes.io/instance-type": "g6.xlarge"}'
    )
    tolerations: list[dict[str, Any]] = Field(
        [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        description="taints that the pod may run on",
    )
    priority_class: str = Field("", description="name of a PriorityClass; a higher one is not preempted")
    labels: dict[str, str] = Field({}, description='more labels, for example {"kueue.x-k8s.io/queue-name": "training"}')
    annotations: dict[str, str] = Field(
        {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        description="more annotations; the default keeps autoscalers from moving a pod at work",
    )

    # What it gets. Requests equal limits, so it is evicted last.
    gpus: int = Field(1, ge=0, description="0: trains on the CPU")
    gpu_resource: str = Field("nvidia.com/gpu", description="what a GPU is called on the cluster")
    cpu: float = Field(4, gt=0, description="cores")
    memory: Quantity = Field("16Gi", description="includes shared_memory")
    shared_memory: Quantity = Field("2Gi", description="/dev/shm, for data loaders and NCCL")
    scratch: Quantity = Field("20Gi", description="the only place on disk the pod can write to")
    run_as_user: int = Field(50000, ge=1, description="user id; the image's")

    # What it knows. Credentials come from Kubernetes secrets or from workload identity, never from here.
    env_secrets: Names = Field((), description="names of Kubernetes secrets whose keys become environment variables")
    env: dict[str, str] = Field({}, description="more environment variables; win over those that Airflow has itself")
    mlflow_tracking_uri: TrackingUri = Field("", description="MLflow's address as the pod sees it, if it is another")

    # How long things take, in seconds.
    startup_seconds: int = Field(
        900,
        ge=1,
        description="until the pod must run: a new node, a large image or a queue take minutes; a scheduling gate's "
        "time (Kueue) does not count",
    )
    grace_seconds: int = Field(120, ge=1, description="for the last checkpoint when the pod is asked to stop")
    lost_seconds: int = Field(300, ge=1, description="how long each try waits for a silent node or Kubernetes API")
    disruptions: int = Field(10, ge=0, description="how many evicted, preempted or lost pods each try replaces")
    deadline_seconds: int = Field(86_400, ge=1, description="after this the pod is stopped, whoever has forgotten it")
    poll_seconds: float = Field(5, gt=0, description="how often the pod's status is read")
    log_seconds: float = Field(10, gt=0, description="how often the pod's log is copied to the task's")

    _split_names = field_validator("image_pull_secrets", "env_secrets", mode="before")(split)

    @property
    def environment(self) -> dict[str, str]:
        """The pod's variables: of Airflow's own those that say where things are, and ``env``.

        Raises ValueError if one of them looks like a credential: everyone who may see pods sees these.
        """
        found = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)} | self.env
        for name, value in found.items():
            if is_credential(name, value):
                raise ValueError(f"{name} looks like a credential: it belongs into a secret (BERT_POD_ENV_SECRETS)")
        return found


PASSED_ON = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "MLFLOW_S3_ENDPOINT_URL",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
)
"""What a pod gets of Airflow's environment; ``BERT_BUCKET`` comes to it. No name that carries a secret."""


class PodSettings(Pod, BaseSettings):
    """Every model's pod, from the environment: ``BERT_POD_`` and the field's name; dicts and lists are JSON there."""

    model_config = SettingsConfigDict(
        env_prefix="BERT_POD_", frozen=True, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    overrides: dict[str, dict[str, Any]] = Field(
        {}, description='other values for a model: {"my-model": {"gpus": 4, "memory": "64Gi"}}'
    )

    @model_validator(mode="after")
    def _check_overrides(self) -> Self:
        for model in self.overrides:
            try:
                self.of(model)
            except ValidationError as error:
                told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
                raise ValueError(f"BERT_POD_OVERRIDES: overrides of {model}: {told}") from error
        return self

    def of(self, model_name: str) -> Pod:
        """A model's pod."""
        return Pod(**(self.model_dump(exclude={"overrides"}) | self.overrides.get(model_name, {})))
