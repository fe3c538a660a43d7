import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dev.environment import airflow_env, environment
from dev.state import Ports, State


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "stack")
    state.make_folders()
    state.choose_ports()
    return state


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_passed_over(taken: int) -> None:
    assert Ports(s3=taken).s3 == taken
    free = Ports.free(promised=range(9000, 9010))
    assert free.s3 >= 9010
    assert len(set(vars(free).values())) == len(vars(free))


def test_chosen_ports_are_remembered(state: State) -> None:
    assert State(state.folder).ports == state.ports


def test_ports_stay_from_start_to_start_unless_taken(state: State, taken: int) -> None:
    first = Ports.free(promised=range(9000, 9010))
    assert Ports.free(before=first) == first
    moved = Ports.free(before=replace(first, mlflow=taken))
    assert (moved.s3, moved.mlflow != taken) == (first.s3, True)


def test_secrets_are_made_once_and_for_the_owner_only(state: State) -> None:
    assert state.secrets == State(state.folder).secrets
    assert stat.S_IMODE((state.folder / "secrets.json").stat().st_mode) == 0o600


def test_a_state_that_never_was_up_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make up"):
        _ = State(tmp_path).ports


def test_exported_bert_settings_win_and_foreign_accounts_stay_out(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_EPOCHS", "9")
    monkeypatch.setenv("BERT_BUCKET", "mine")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    found = environment(state, {"BERT_SEED": "7"})
    assert (found["BERT_EPOCHS"], found["BERT_BUCKET"], found["BERT_SEED"]) == ("9", "mine", "7")
    assert found["AIRFLOW__ASTRO_SDK__XCOM_STORAGE_URL"] == "s3://mine/xcom"
    assert "AWS_PROFILE" not in found
    assert found["AIRFLOW__CORE__EXECUTOR"].endswith("LocalExecutor")


def test_down_without_a_stack_says_so_and_makes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dev", "down", "--state", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing is up.")
    assert not (tmp_path / "none").exists()


def test_another_airflow_is_told_where_things_are_and_keeps_its_own_home(state: State) -> None:
    given = airflow_env(environment(state))
    assert given["AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES"] == "airflow.* astro.*"
    assert given["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{state.ports.s3}"
    assert not [name for name, value in given.items() if "\n" in value]
    of_the_stack = {"PATH", "AIRFLOW_HOME", "AIRFLOW__CORE__EXECUTOR", "AIRFLOW__WEBSERVER__WEB_SERVER_PORT"}
    assert of_the_stack & set(given) == set()
    assert str(state.folder) not in "".join(given.values())
