"""deployment.yaml: what the Astro CLI would refuse, or would put into production by mistake."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.settings import Settings
from include.settings.pod import PodSettings

REPOSITORY = Path(__file__).parents[2]
FILE = REPOSITORY / "deployment.yaml"
# What the CLI reads (astro-cli, cloud/deployment/inspect, type deploymentConfig and Workerq).
CONFIGURATION = {
    *("name", "description", "runtime_version", "dag_deploy_enabled", "ci_cd_enforcement", "scheduler_size"),
    *("is_high_availability", "is_development_mode", "executor", "scheduler_count", "workspace_name"),
    *("deployment_type", "cloud_provider", "region", "default_task_pod_cpu", "default_task_pod_memory"),
    *("resource_quota_cpu", "resource_quota_memory", "workload_identity"),
}
QUEUE = {"name", "max_worker_count", "min_worker_count", "worker_concurrency", "worker_type"}


@pytest.fixture
def deployment() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())["deployment"]


def variables(deployment: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in deployment["environment_variables"] if "value" in one}


def test_it_has_only_fields_that_the_cli_reads(deployment: dict[str, Any]) -> None:
    assert set(deployment) == {"configuration", "worker_queues", "environment_variables"}
    assert set(deployment["configuration"]) == CONFIGURATION
    assert all(set(queue) == QUEUE for queue in deployment["worker_queues"])
    assert [queue["name"] for queue in deployment["worker_queues"]].count("default") == 1


def test_dags_are_deployed_in_the_image(deployment: dict[str, Any]) -> None:
    assert not deployment["configuration"]["dag_deploy_enabled"], (
        "the CLI would keep dags/ from the build, which copies it"
    )


def test_no_secret_has_a_value_and_every_other_variable_has_one(deployment: dict[str, Any]) -> None:
    """A secret without the field is kept by an update; one with an empty value would be overwritten by it."""
    for variable in deployment["environment_variables"]:
        assert variable.keys() - {"key", "is_secret", "value"} == set()
        assert variable["is_secret"] is ("value" not in variable), variable["key"]
        assert isinstance(variable.get("value", ""), str), variable["key"]
        assert variable.get("value") != "", variable["key"]
    secret = {variable["key"] for variable in deployment["environment_variables"] if variable["is_secret"]}
    named = (variable["key"] for variable in deployment["environment_variables"])
    assert {key for key in named if re.search(r"PASSWORD|TOKEN|SECRET_KEY|WAREHOUSE", key)} <= secret


def test_every_bert_variable_is_a_setting_and_is_accepted(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {f"BERT_{name.upper()}" for name in Settings.model_fields}
    fields |= {f"BERT_POD_{name.upper()}" for name in PodSettings.model_fields}
    chosen = {key: value for key, value in variables(deployment).items() if key.startswith("BERT_")}
    assert chosen.keys() <= fields
    for key, value in chosen.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert settings.environment == "production"
    assert settings.pod.environment["AWS_DEFAULT_REGION"] == deployment["configuration"]["region"]


def test_the_line_that_ends_polling_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(FILE.read_text().replace("# - {key", "- {key"))
    url = variables(content["deployment"])["BERT_UPLOADS_QUEUE_URL"]
    monkeypatch.setenv("BERT_UPLOADS_QUEUE_URL", url)
    assert Settings().uploads_queue_url == url
    assert url.startswith(f"https://sqs.{content['deployment']['configuration']['region']}.amazonaws.com/")


def test_the_bucket_of_frames_is_the_lakes(deployment: dict[str, Any]) -> None:
    found = variables(deployment)
    assert found["AIRFLOW__ASTRO_SDK__XCOM_STORAGE_URL"] == f"s3://{found['BERT_BUCKET']}/xcom"


def test_the_runtime_is_the_images(deployment: dict[str, Any]) -> None:
    image = re.search(r"astro-runtime:([0-9.]+)-", (REPOSITORY / "Dockerfile").read_text())
    assert image
    assert deployment["configuration"]["runtime_version"] == image[1]
