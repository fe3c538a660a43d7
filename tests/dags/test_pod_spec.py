"""The pod that the kubernetes backend asks for, rendered without a cluster."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client import ApiClient, V1ObjectMeta, V1Pod, V1PodStatus

from include.orchestration.training_task import training_task
from include.settings import Settings, settings
from include.settings.pod import Pod, PodSettings

IMAGE = "registry.example.com/trainer@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
RUN_ID = "dataset_triggered__2026-11-20T10:00:00.123456+00:00"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "an-id-nobody-may-see",
    "AWS_SECRET_ACCESS_KEY": "a-key-nobody-may-see",
    "AWS_SESSION_TOKEN": "a-session-nobody-may-see",
    "HF_TOKEN": "a-hub-token-nobody-may-see",
    "MLFLOW_TRACKING_PASSWORD": "a-password-nobody-may-see",
    "AIRFLOW_CONN_AWS_DEFAULT": "aws://an-id-nobody-may-see:a-key-nobody-may-see@",
    "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(
        {
            "conn_type": "kubernetes",
            "extra": {
                "namespace": "training",
                "kube_config": {
                    "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example.com"}}],
                    "users": [{"name": "u", "user": {"token": "a-cluster-token-nobody-may-see"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "c",
                },
            },
        }
    ),
}


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """The task of the kubernetes backend; BERT_POD_ settings go by keyword."""

    def make(**pod: Any) -> Any:
        values = SECRETS | {
            "AIRFLOW_VAR_BERT_AIRFLOW_ID": "a1b2",
            "BERT_TRAINING_BACKEND": "kubernetes",
            "BERT_POD_IMAGE": IMAGE,
        }
        for name, value in (values | {f"BERT_POD_{name.upper()}": value for name, value in pod.items()}).items():
            monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))
        settings.cache_clear()
        return training_task(task_id="train_model", dataset_uri="s3://bert/datasets/d/")

    yield make
    settings.cache_clear()


@pytest.fixture
def render(task: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """The pod as it is sent to the Kubernetes API."""

    def make(**pod: Any) -> dict[str, Any]:
        ti = SimpleNamespace(dag_id="bert pipeline (ü)", task_id="train_model", try_number=2, map_index=-1)
        context = {"ti": ti, "run_id": RUN_ID, "dag": SimpleNamespace()}
        rendered: dict[str, Any] = ApiClient().sanitize_for_serialization(
            task(**pod).pod_of(context, "0123456789abcdef")
        )
        return rendered

    return make


EVERYTHING = {
    "image_pull_secrets": "registry,other",
    "namespace": "gpu",
    "service_account": "trainer",
    "automount_token": "true",
    "node_selector": {"node.kubernetes.io/instance-type": "g6.xlarge"},
    "tolerations": [{"key": "gpu", "operator": "Equal", "value": "only", "effect": "NoExecute"}],
    "priority_class": "training",
    "labels": {"kueue.x-k8s.io/queue-name": "training"},
    "annotations": {"a": "b"},
    "gpus": 4,
    "cpu": 7.5,
    "memory": "60Gi",
    "shared_memory": "8Gi",
    "scratch": "100Gi",
    "run_as_user": 1234,
    "env_secrets": "s3,mlflow",
    "env": {"NCCL_DEBUG": "INFO", "AWS_ENDPOINT_URL": "http://s3.storage:9000"},
    "grace_seconds": 300,
    "deadline_seconds": 3600,
}


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("pod", [{}, {"gpus": 0}, EVERYTHING], ids=["default", "cpu", "everything"])
def test_the_pod_is_valid_by_kubernetes_own_schema(render: Any, pod: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(render(**pod), version, strict=True)


def test_the_schema_finds_a_wrong_field(render: Any) -> None:
    pod = render()
    pod["spec"]["containers"][0]["resources"]["limit"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_requests_equal_limits_for_guaranteed_quality_of_service(render: Any) -> None:
    (container,) = render(gpus=2, cpu=6, memory="24Gi")["spec"]["containers"]
    wanted = {"cpu": "6", "memory": "24Gi", "nvidia.com/gpu": "2"}
    assert container["resources"]["limits"] == wanted
    assert wanted.items() <= container["resources"]["requests"].items()
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in container["env"]
    (container,) = render(gpus=0)["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_the_container_can_do_nothing_but_train(render: Any) -> None:
    spec = render()["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
    assert volumes == {"shared-memory": {"medium": "Memory", "sizeLimit": "2Gi"}, "scratch": {"sizeLimit": "20Gi"}}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/dev/shm", "/scratch"}
    written_to = {one["value"] for one in container["env"] if one["name"] in ("HOME", "TMPDIR", "HF_HOME")}
    assert all(path.startswith("/scratch") for path in written_to)


def test_every_setting_reaches_the_pod(render: Any) -> None:
    pod = render(**EVERYTHING)
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert pod["metadata"]["namespace"] == "gpu"
    assert pod["metadata"]["annotations"]["a"] == "b"
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "other"}]
    assert spec["serviceAccountName"] == "trainer"
    assert spec["automountServiceAccountToken"] is True
    assert spec["nodeSelector"] == EVERYTHING["node_selector"]
    assert spec["tolerations"] == EVERYTHING["tolerations"]
    assert spec["priorityClassName"] == "training"
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 1234
    assert spec["terminationGracePeriodSeconds"] == 300
    assert spec["activeDeadlineSeconds"] == 3600
    assert [one["secretRef"]["name"] for one in container["envFrom"]] == ["s3", "mlflow"]
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://s3.storage:9000"} in container["env"]


def test_the_pod_is_labelled_with_the_task_it_belongs_to(render: Any) -> None:
    pod = render()
    labels = pod["metadata"]["labels"]
    assert pod["metadata"]["name"] == "train-0123456789abcdef", "no random suffix: the name is the lock"
    assert labels["app.kubernetes.io/name"] == "bert-training"
    assert labels["job_id"] == "0123456789abcdef"
    assert labels["airflow_id"] == "a1b2"
    assert (labels["task_id"], labels["try_number"]) == ("train_model", "2")
    assert labels["dag_id"]
    assert labels["run_id"]
    assert pod["metadata"]["annotations"]["run_id"] == RUN_ID, "labels cannot hold it as it is"


def test_a_model_has_a_pod_of_its_own(render: Any) -> None:
    overrides = {"bert-classifier": {"gpus": 8, "image": "other:2"}, "another": {"gpus": 0}}
    (container,) = render(overrides=overrides, memory="50Gi")["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "50Gi", "nvidia.com/gpu": "8"}
    assert container["image"] == "other:2"


def test_no_credential_of_airflow_is_in_the_pod_or_the_metadata_database(
    render: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.exceptions import TaskDeferred

    pod = render(**EVERYTHING)
    operator = task(**EVERYTHING)
    operator.pod = V1Pod(metadata=V1ObjectMeta(name="p", namespace="n", uid="u"), status=V1PodStatus())
    with pytest.raises(TaskDeferred) as deferral:
        operator._wait("0123456789abcdef", disruptions=0)
    assert "nobody-may-see" not in json.dumps(pod) + json.dumps(deferral.value.trigger.serialize())


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_TOKEN": "x"},
        {"AWS_SECRET_ACCESS_KEY": "x"},
        {"DB_PASSWORD": "x"},
        {"AWS_ENDPOINT_URL": "http://user:password@s3:9000"},
        {"GOOGLE_APPLICATION_CREDENTIALS": '{"private_key": "x"}'},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_credential_among_the_settings_is_refused(task: Any, environment: dict[str, str]) -> None:
    (name, value) = next(iter(environment.items()))
    with pytest.raises(ValueError, match=f"{name} looks like a credential") as error:
        task(env=environment)
    assert value not in str(error.value).replace(name, "")


@pytest.mark.parametrize("variable", ["BERT_POD_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"])
def test_a_login_in_the_address_of_mlflow_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://user:nobody-may-see@mlflow:5000")
    with pytest.raises(ValueError, match=r"(?i)mlflow_tracking_uri\n.*looks like a credential") as error:
        Settings()
    assert "nobody-may-see" not in str(error.value)


def test_the_path_of_a_credential_is_none(render: Any) -> None:
    paths = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/token",
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc/google/key.json",
    }
    (container,) = render(env=paths)["spec"]["containers"]
    assert paths.items() <= {one["name"]: one.get("value") for one in container["env"]}.items()


def test_an_execution_timeout_becomes_the_pods_deadline(task: Any) -> None:
    task()
    operator = training_task(task_id="t", dataset_uri="d", execution_timeout=timedelta(hours=2))
    assert (operator.execution_timeout, operator.active_deadline_seconds) == (None, 7200)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("BERT_POD_MEMORY", "much"), ("BERT_POD_GPUS", "-1"), ("BERT_POD_OVERRIDES", '{"m": {"gpu": 2}}')],
)
def test_a_wrong_setting_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable.removeprefix("BERT_POD_").lower().removesuffix("s")):
        PodSettings()


def test_the_kubernetes_backend_needs_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_TRAINING_BACKEND", "kubernetes")
    settings.cache_clear()
    with pytest.raises(ValueError, match="set BERT_POD_IMAGE"):
        settings()
    settings.cache_clear()


def test_the_docs_name_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text()
    for name, field in PodSettings.model_fields.items():
        default = field.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        text = json.dumps(shown) if isinstance(shown, dict | list | bool) else f"{shown}"
        row = next((line for line in page.splitlines() if line.startswith(f"| `BERT_POD_{name.upper()}` |")), "")
        assert row, f"docs/kubernetes.md has no row for BERT_POD_{name.upper()}"
        assert f"| `{text}` |" in row or (text in ("", "{}", "[]") and "| |" in row), row
    assert Pod.model_fields.keys() < PodSettings.model_fields.keys()


def test_the_local_backend_imports_nothing_of_kubernetes_training() -> None:
    code = (
        "import sys; from include.orchestration.training_task import training_task;"
        "training_task(task_id='t', dataset_uri='d');"
        "print([m for m in sys.modules if m.endswith(('training_pod', 'pod_operator', 'operators.pod'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
