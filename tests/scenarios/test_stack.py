"""The local stack itself: up, up again, down, and everything that may crash.

The tests go last over the stack that the other scenarios have used, in order.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import boto3
import mlflow
import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from mlflow import MlflowClient

from dev.environment import MARKER
from dev.processes import StartError
from dev.stack import Stack
from dev.state import REPOSITORY

PROGRAMS = {"postgres", "s3", "mlflow", "serving", "scheduler", "triggerer", "webserver"}


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dev", *arguments], capture_output=True, text=True, timeout=600)


def survivors(stack: Stack) -> list[str]:
    """Command lines of all processes that carry the stack's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARKER) == str(stack.state.folder)
            running = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if marked and running:
            found.append(" ".join(process.cmdline()))
    return found


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.2)


def leave_traces(stack: Stack) -> str:
    """Puts something into every store; returns the name it has everywhere."""
    name = f"trace-{time.time_ns()}"
    stack.s3.put_object(Bucket="bert", Key=name, Body=b"kept")
    if not stack.services_only:
        stack.airflow.post("/variables", json={"key": name, "value": "kept"}).raise_for_status()
    client = MlflowClient(stack.mlflow_uri)
    run = client.create_run(client.create_experiment(name), run_name=name)
    client.log_param(run.info.run_id, "trace", "kept")
    return name


def assert_traces(stack: Stack, name: str) -> None:
    assert stack.s3.get_object(Bucket="bert", Key=name)["Body"].read() == b"kept"
    if not stack.services_only:
        assert stack.airflow.get(f"/variables/{name}").json()["value"] == "kept"
    client = MlflowClient(stack.mlflow_uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert [run.data.params for run in client.search_runs([experiment.experiment_id])] == [{"trace": "kept"}]


def test_everything_is_healthy_after_up(stack: Stack) -> None:
    assert set(stack.statuses()) == PROGRAMS
    assert all(stack.is_healthy(name) for name in PROGRAMS)
    assert {bucket["Name"] for bucket in stack.s3.list_buckets()["Buckets"]} == {"bert", "mlflow"}
    assert stack.airflow.get("/pools/gpu").json()["slots"] == 1
    assert stack.airflow.get("/importErrors").json()["import_errors"] == []


def test_a_second_up_says_that_it_is_up_and_what_is_not_in_force(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stack.pids()
    monkeypatch.setenv("BERT_EPOCHS", "9")
    done = dev("up", "--state", str(stack.state.folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "already up" in done.stdout
    assert "these are not in force: BERT_EPOCHS=9" in done.stdout
    assert f"--endpoint-url {stack.s3_url}" in done.stdout
    assert stack.pids() == before


def test_a_file_is_uploaded_and_the_environment_suits_any_client(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "odd ü+.txt").write_text("no table")
    command = ("upload", "--state", str(stack.state.folder), str(tmp_path / "odd ü+.txt"))
    refused = dev(*command)
    assert refused.returncode == 1
    assert "not uploaded, since it cannot be read" in refused.stdout
    assert "FORCE=1" in refused.stdout
    assert dev(*command, "--force").returncode == 0
    lines = dev("env", "--state", str(stack.state.folder)).stdout.splitlines()
    exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    assert exports["MLFLOW_TRACKING_URI"] == stack.mlflow_uri
    client = boto3.client(
        "s3",
        endpoint_url=exports["AWS_ENDPOINT_URL"],
        region_name=exports["AWS_DEFAULT_REGION"],
        aws_access_key_id=exports["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=exports["AWS_SECRET_ACCESS_KEY"],
    )
    # The listener may have claimed it already: then it lies elsewhere, under its own name.
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=exports["BERT_BUCKET"])
    names = [item["Key"] for page in pages for item in page["Contents"]]
    assert any(name.endswith("/odd ü+.txt") for name in names)


def test_artifacts_are_served_from_s3(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("<h1>Report</h1>")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.mlflow_uri)
    client = MlflowClient(stack.mlflow_uri)
    run = client.create_run(client.create_experiment("artifacts"))
    client.log_artifact(run.info.run_id, str(tmp_path / "report.html"))
    prefix = f"{run.info.experiment_id}/{run.info.run_id}/"
    [key] = [item["Key"] for item in stack.s3.list_objects_v2(Bucket="mlflow", Prefix=prefix)["Contents"]]
    assert key.endswith("/report.html")
    assert "<h1>" in mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.html")


def test_a_killed_s3_server_loses_nothing_and_comes_back(stack: Stack) -> None:
    kept = stack.s3.put_object(Bucket="bert", Key="before the kill", Body=b"1" * 1_000_000)["ETag"]
    before = stack.pids()["s3"]
    os.kill(before, signal.SIGKILL)
    wait(lambda: stack.pids().get("s3", before) != before and stack.is_healthy("s3"))
    head = stack.s3.head_object(Bucket="bert", Key="before the kill")
    assert (head["ETag"], head["ContentLength"]) == (kept, 1_000_000)


def test_a_killed_postgres_and_webserver_come_back_and_no_orphan_serves_on(stack: Stack) -> None:
    name = leave_traces(stack)
    before, webserver = stack.pids()["postgres"], psutil.Process(stack.pids()["webserver"])
    gunicorn = webserver.children(recursive=True)
    assert gunicorn
    for pid in (before, webserver.pid):
        os.kill(pid, signal.SIGKILL)
    wait(lambda: stack.pids().get("postgres", before) != before and stack.is_healthy("postgres"))
    wait(lambda: not any(process.is_running() for process in gunicorn), 120)
    wait(lambda: all(stack.is_healthy(program) for program in PROGRAMS), 240)
    assert_traces(stack, name)
    assert_listens_on_this_machine_only(stack)


def assert_listens_on_this_machine_only(stack: Stack) -> None:
    marked = (process for process in psutil.process_iter() if marks(process) == str(stack.state.folder))
    connections = (one for process in marked for one in process.net_connections("inet"))
    listening = {one.laddr for one in connections if one.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {stack.state.ports.task_logs, stack.state.ports.trigger_logs} <= {address.port for address in listening}


def marks(process: psutil.Process) -> str | None:
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARKER)
    return None


def test_s3_answers_errors_while_told_to(stack: Stack) -> None:
    stack.state.s3_faults.touch()
    try:
        assert not stack.is_healthy("s3")
    finally:
        stack.state.s3_faults.unlink()
    assert stack.is_healthy("s3")


@pytest.mark.nightly
def test_down_leaves_no_process_and_up_finds_the_data_again(stack: Stack) -> None:
    name = leave_traces(stack)
    assert dev("down", "--state", str(stack.state.folder)).returncode == 0
    assert survivors(stack) == []
    for port in asdict(stack.state.ports).values():
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 1):
            pass
    with pytest.raises((BotoCoreError, ClientError)):
        stack.s3.list_buckets()
    assert "Nothing is up" in dev("down", "--state", str(stack.state.folder)).stdout
    assert stack.up()
    assert_traces(stack, name)


def test_a_program_that_cannot_start_stops_everything_and_shows_its_log(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.state.s3_file.mkdir()
    with pytest.raises(StartError, match=r"s3 did not become healthy[\s\S]*unable to open database file"):
        stack.up()
    assert survivors(stack) == []


def test_an_interrupted_up_stops_everything(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    up = subprocess.Popen([sys.executable, "-m", "dev", "up", "--state", str(tmp_path)], stdout=subprocess.DEVNULL)
    wait(lambda: stack.statuses().get("s3") == "RUNNING")
    up.send_signal(signal.SIGINT)
    assert up.wait(240) == 130  # however busy the machine is
    assert survivors(stack) == []


@pytest.fixture(scope="module")
def services() -> Iterator[Stack]:
    """All but Airflow, for one that somebody else runs."""
    with tempfile.TemporaryDirectory(prefix="stack-") as folder:
        services = Stack(Path(folder), services_only=True)
        with services.running():
            yield services
        assert survivors(services) == []


@pytest.mark.nightly
def test_services_alone_come_with_what_an_airflow_beside_them_needs(services: Stack) -> None:
    assert set(services.statuses()) == {"postgres", "s3", "mlflow", "serving"}
    assert not services.up()
    assert stat.S_IMODE(services.state.airflow_env.stat().st_mode) == 0o600
    given = dict(line.split("=", 1) for line in services.state.airflow_env.read_text().splitlines())
    assert given["MLFLOW_TRACKING_URI"] == services.mlflow_uri
    assert given["AIRFLOW_CONN_WAREHOUSE"] == services.warehouse_url
    home = str(services.state.folder / "other")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "AIRFLOW_HOME": home}
    command = [sys.executable, "-m", "airflow", "users", "list", "--output", "plain"]
    users = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    assert "admin" in users.stdout


@pytest.mark.nightly
def test_up_recovers_after_the_process_manager_and_postgres_were_killed(services: Stack) -> None:
    name = leave_traces(services)
    manager, database = int(services.state.supervisor_pid.read_text()), services.pids()["postgres"]
    os.kill(manager, signal.SIGKILL)
    os.kill(database, signal.SIGKILL)
    wait(lambda: services.statuses() == {})
    assert services.up()
    assert all(services.is_healthy(program) for program in ("postgres", "s3", "mlflow"))
    assert_traces(services, name)
