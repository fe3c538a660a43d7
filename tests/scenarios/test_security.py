"""Who may do what, and when Airflow refuses to start: with a real webserver, scheduler and database."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from dev.stack import Stack

REPOSITORY = Path(__file__).parents[2]
TRAIN, ROLL_BACK = "bert_model_training_pipeline", "model_rollback"
GOOD = {
    "BERT_ENVIRONMENT": "production",
    "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
    "AIRFLOW__WEBSERVER__SECRET_KEY": "0123456789abcdef" * 2,
}


def command(*words: str, environment: Mapping[str, str], home: Path) -> dict[str, Any]:
    """How to run Airflow with this project's plugins and no settings but these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    paths = {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    return {"args": [sys.executable, "-m", "airflow", *words], "env": own | paths | environment, "text": True}


def airflow(*words: str, environment: Mapping[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(*words, environment=environment, home=home), capture_output=True, timeout=300)


@pytest.mark.parametrize("component", ["scheduler", "webserver", "triggerer"])
def test_no_component_starts_without_keys_of_its_own(component: str, tmp_path: Path) -> None:
    done = airflow(component, environment={"BERT_ENVIRONMENT": "production"}, home=tmp_path)
    assert done.returncode == 1
    assert "Airflow does not start: BERT_ENVIRONMENT is production" in done.stderr
    assert "AIRFLOW__CORE__FERNET_KEY is not set" in done.stderr
    assert "AIRFLOW__WEBSERVER__SECRET_KEY is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_with_keys_of_its_own_is_not_refused(tmp_path: Path) -> None:
    done = airflow("version", environment=GOOD, home=tmp_path)
    assert done.returncode == 0, done.stderr


def add_user(stack: Stack, name: str, *roles: str) -> httpx.Client:
    """A client of the REST API that is logged in as a new user."""
    body = {
        "username": name,
        "password": f"{name}'s own",
        "email": f"{name}@localhost",
        "first_name": name,
        "last_name": "Test",
        "roles": [{"name": role} for role in roles],
    }
    with stack.airflow as admin:
        admin.post("/users", json=body).raise_for_status()
        return httpx.Client(base_url=admin.base_url, auth=(name, f"{name}'s own"), timeout=60, trust_env=False)


def train(client: httpx.Client) -> int:
    """The API's answer to a new run."""
    return client.post(f"/dags/{TRAIN}/dagRuns", json={"dag_run_id": "tom", "conf": {}}).status_code


def roll_back(client: httpx.Client) -> int:
    return client.post(
        f"/dags/{ROLL_BACK}/dagRuns", json={"dag_run_id": "admin", "conf": {"reason": "a test"}}
    ).status_code


def clear_and_stop(client: httpx.Client) -> set[int]:
    clear = client.post(f"/dags/{TRAIN}/clearTaskInstances", json={"dag_run_id": "tom", "dry_run": True})
    stop = client.patch(f"/dags/{TRAIN}/dagRuns/tom", json={"state": "failed"})
    return {clear.status_code, stop.status_code}


def test_a_viewer_sees_a_trainer_trains_and_an_admin_rolls_back(stack: Stack) -> None:
    with add_user(stack, "vera", "Viewer") as viewer, add_user(stack, "tom", "Viewer", "Trainer") as trainer:
        for client in (viewer, trainer):
            assert client.get(f"/dags/{TRAIN}/dagRuns").status_code == 200
            assert client.get("/connections").status_code == 403
            assert client.get("/users").status_code == 403
            assert client.delete(f"/dags/{TRAIN}").status_code == 403
            assert roll_back(client) == 403
        assert train(viewer) == 403
        assert train(trainer) == 200
        assert clear_and_stop(viewer) == {403}
        assert clear_and_stop(trainer) == {200}
        assert trainer.patch(f"/dags/{ROLL_BACK}", json={"is_paused": True}).status_code == 403
    with stack.airflow as admin:
        assert roll_back(admin) == 200
        assert httpx.get(f"{admin.base_url}dags", trust_env=False).status_code in (401, 403)


def test_a_rollback_that_cannot_be_says_why(stack: Stack) -> None:
    """Goes on with the administrator's run: nothing was ever promoted here."""
    with stack.airflow as admin:
        deadline = time.monotonic() + 120
        while (run := admin.get(f"/dags/{ROLL_BACK}/dagRuns/admin").json())["state"] not in ("success", "failed"):
            assert time.monotonic() < deadline, run
            time.sleep(1)
    assert run["state"] == "failed"
    assert "not rolled back: bert-classifier has no golden set: nothing was ever promoted" in run["note"]


def test_the_webserver_refuses_a_default_login_elsewhere_than_local(stack: Stack, tmp_path: Path) -> None:
    environment = stack.env | {"BERT_ENVIRONMENT": "staging", "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": "0"}
    start = command("webserver", "--pid", str(tmp_path / "pid"), environment=environment, home=tmp_path)
    with subprocess.Popen(**start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as webserver:
        assert webserver.stdout
        # It would still wait two minutes for gunicorn, which has ended.
        said = next(line for line in webserver.stdout if "the user admin has" in line or "Booting worker" in line)
        webserver.terminate()
    assert "the user admin has the password admin" in said
