"""Metrics: the dashboard asks for what the StatsD exporter shows of the names that Airflow sends; images are pinned."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "dev/observability"
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/training.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = yaml.safe_load((FOLDER / "statsd.yml").read_text())["mappings"]
# What an Airflow 2.11.2 of this project sent: its StatsD name and type, one a line.
SENT = [line.split() for line in (Path(__file__).parent / "statsd_names.txt").read_text().splitlines()]
COMPOSE_FILES = (
    "docker-compose.override.yml",
    "dev/observability/compose.true.yml",
    "dev/observability/compose.false.yml",
)

Series = tuple[str, dict[str, str]]


def rule_for(name: str) -> dict[str, Any] | None:
    """The first rule that matches, as in the exporter."""
    return next((rule for rule in RULES if re.search(rule["match"], name)), None)


def series(name: str) -> Series | None:
    """The exporter's metric name and labels for a StatsD name; None if it drops it."""
    rule = rule_for(name)
    if rule is None:
        return re.sub(r"\W", "_", name), {}
    if rule.get("action") == "drop":
        return None
    found = re.search(rule["match"], name)
    assert found
    labels = {label: found.expand(value.replace("$", "\\")) for label, value in rule.get("labels", {}).items()}
    return rule["name"], labels


def exported() -> list[Series]:
    """Everything that the exporter shows; a timer as a summary, with its quantiles, sum and count."""
    shown = []
    for name, kind in SENT:
        if (one := series(name)) is None:
            continue
        metric, labels = one
        shown += [(metric, labels)] if kind != "ms" else []
        shown += [(f"{metric}_{part}", labels) for part in ("sum", "count")] if kind == "ms" else []
        shown += [(metric, labels | {"quantile": q}) for q in ("0.5", "0.9", "0.99")] if kind == "ms" else []
    return shown


def wanted(query: str) -> list[tuple[str, dict[str, str]]]:
    """The metrics that a query names, each with its label matchers as regular expressions."""
    selectors = re.findall(r"(airflow_\w+)(?:\{(.*?)\})?", query)
    return [
        (
            metric,
            {
                label: value if op == "=~" else re.escape(value)
                for label, op, value in re.findall(r'(\w+)(=~?)"(.*?)"', inside)
            },
        )
        for metric, inside in selectors
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_of_the_dashboard_finds_a_series_that_airflow_sends(query: str) -> None:
    assert wanted(query)
    for metric, matchers in wanted(query):
        found = [
            labels
            for name, labels in exported()
            if name == metric and all(re.fullmatch(value, labels.get(label, "")) for label, value in matchers.items())
        ]
        assert found, metric
        grouped = re.search(r"by \((.*?)\)", query)
        assert all(set(grouped[1].split(", ")) <= labels.keys() for labels in found if grouped)


def test_each_rule_of_the_exporter_is_needed() -> None:
    used = [rule["match"] for name, _ in SENT if (rule := rule_for(name))]
    assert set(used) == {rule["match"] for rule in RULES}


def test_no_metric_is_sent_under_one_name_with_two_types() -> None:
    """The exporter would drop whichever came second."""
    kinds: dict[str, set[str]] = {}
    for name, kind in SENT:
        if one := series(name):
            kinds.setdefault(one[0], set()).add(kind)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_ids_of_jobs_and_hosts_do_not_become_metrics() -> None:
    assert series("airflow.local_task_job.task_exit.17.s3_upload_listener.claim_uploads.0") is None
    assert series("airflow.triggers.running.6f1a.example.org") is None
    assert series("airflow.triggers.running") == ("airflow_triggers_running", {})


def test_a_task_in_a_group_keeps_its_whole_id() -> None:
    labels = {"dag_id": "a_dag", "task_id": "group.task"}
    assert series("airflow.dag.a_dag.group.task.duration") == ("airflow_task_seconds", labels)
    assert series("airflow.ti.finish.a_dag.group.task.failed") == (
        "airflow_tasks_finished",
        labels | {"state": "failed"},
    )


def test_the_dashboard_reads_from_the_provisioned_data_source() -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana/datasource.yml").read_text())["datasources"]
    used = {
        (d["type"], d["uid"])
        for panel in DASHBOARD["panels"]
        for d in (panel["datasource"], *(t["datasource"] for t in panel["targets"]))
    }
    assert used == {(source["type"], source["uid"])}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def services(file: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / file).read_text())["services"]


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_compose_runs_pinned_images_and_publishes_to_this_machine_only(file: str) -> None:
    for name, service in services(file).items():
        if "image" in service:
            assert re.search(r":v?\d+\.\d+[\w.-]*$", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_the_shell_chooses_between_two_files_that_are_there() -> None:
    chosen, _ = yaml.safe_load((REPOSITORY / "docker-compose.override.yml").read_text())["include"]
    assert services(chosen.replace("${OBSERVE:-false}", "false")) == {}
    observing = services(chosen.replace("${OBSERVE:-false}", "true"))
    assert set(observing) == {"statsd", "prometheus", "grafana"}
    for name, service in observing.items():
        assert service["networks"] == ["airflow"], name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).exists(), volume


def test_airflow_prometheus_and_grafana_agree_on_addresses() -> None:
    airflow = services("docker-compose.override.yml")["scheduler"]["environment"]
    assert (airflow["AIRFLOW__METRICS__STATSD_HOST"], airflow["AIRFLOW__METRICS__STATSD_PORT"]) == ("statsd", "9125")
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert [job["static_configs"] for job in jobs] == [[{"targets": ["statsd:9102"]}], [{"targets": ["serving:8000"]}]]
    (source,) = yaml.safe_load((FOLDER / "grafana/datasource.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_the_image_has_the_client_that_airflow_sends_metrics_with() -> None:
    assert re.search(r"^statsd==", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
