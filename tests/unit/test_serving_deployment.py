"""What runs the model server elsewhere: manifests that Kubernetes' own schema accepts, a compose file, a dashboard."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from include.serving.metrics import Metrics
from include.settings import variables

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = list(yaml.safe_load_all((REPOSITORY / "deploy/serving/kubernetes.yaml").read_text()))
KSERVE = yaml.safe_load((REPOSITORY / "deploy/serving/kserve.yaml").read_text())
OWN = ("MLFLOW_TRACKING_URI", "AWS_DEFAULT_REGION")


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (one for one in MANIFESTS if one["kind"] == kind)
    return found


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_accepts_the_manifests(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_pod_of_kserve_is_one_that_kubernetes_accepts() -> None:
    spec = {
        name: value for name, value in KSERVE["spec"]["predictor"].items() if name not in ("minReplicas", "maxReplicas")
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    "pod",
    [of_kind("Deployment")["spec"]["template"]["spec"], KSERVE["spec"]["predictor"]],
    ids=["deployment", "kserve"],
)
def test_pods_have_no_token_no_root_and_one_place_to_write(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/scratch"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in ("/ready", "/live", "/v2/health/ready", "/v2/health/live")


def test_manifests_agree_on_names_and_settings_are_settings() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert (
        of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == of_kind("Deployment")["metadata"]["name"]
    )
    assert set(of_kind("ConfigMap")["data"]) <= {*variables(), *OWN}


def test_the_dashboard_asks_for_metrics_that_the_server_has() -> None:
    dashboard = json.loads((REPOSITORY / "dev/observability/grafana/dashboards/serving.json").read_text())
    families = {family.name: family.type for family in Metrics().registry.collect()}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    known = {name + suffix for name, kind in families.items() for suffix in suffixes[kind]}
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"bert_\w+", target["expr"])
    }
    assert asked <= known, asked - known
    (metric,) = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in known


def test_compose_has_the_server_only_where_it_is_wanted() -> None:
    chosen = yaml.safe_load((REPOSITORY / "docker-compose.override.yml").read_text())["include"][1]
    services = [
        yaml.safe_load((REPOSITORY / chosen.replace("${SERVE:-false}", how)).read_text())["services"]
        for how in ("false", "true")
    ]
    assert services[0] == {}
    assert services[1]["serving"]["networks"] == ["airflow"]
    assert services[1]["serving"]["ports"] == ["127.0.0.1:${SERVING_PORT:-8000}:8000"]
