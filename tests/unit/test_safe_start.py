import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.orchestration.safe_start import WELL_KNOWN_KEYS, refuse_unsafe_configuration, refuse_unsafe_logins

FERNET, SECRET, BACKENDS = "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__WEBSERVER__SECRET_KEY", "AIRFLOW__API__AUTH_BACKENDS"
GOOD = {
    "BERT_ENVIRONMENT": "production",
    FERNET: "Y0h3TnVkYmJtYjBhb2t2dGx1ZGtqd2ZoZ2hqa2xwb2k=",
    SECRET: "0123456789abcdef" * 2,
    BACKENDS: "airflow.api.auth.backend.session",
}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch):
    def apply(**values: str) -> None:
        for name, value in (GOOD | values).items():
            monkeypatch.setenv(name, value)

    return apply


def test_own_keys_and_a_closed_api_may_start(configured) -> None:
    configured()
    refuse_unsafe_configuration()


def test_what_does_not_say_where_it_is_is_no_developers_machine(configured, monkeypatch: pytest.MonkeyPatch) -> None:
    configured()
    monkeypatch.delenv("BERT_ENVIRONMENT")
    refuse_unsafe_configuration()
    monkeypatch.setenv(SECRET, "static_key")
    with pytest.raises(SystemExit, match=r"is production since nothing sets it .* set it to local"):
        refuse_unsafe_configuration()


def test_a_developers_machine_may_start_with_anything(configured) -> None:
    configured(BERT_ENVIRONMENT="local", AIRFLOW__CORE__FERNET_KEY="", AIRFLOW__WEBSERVER__SECRET_KEY="static_key")
    refuse_unsafe_configuration()


@pytest.mark.parametrize("key", [*WELL_KNOWN_KEYS, "bert-on-astro", "bert-on-astro_3f9a1c"])
@pytest.mark.parametrize("name", [FERNET, SECRET])
def test_well_known_keys_are_refused_and_not_printed(configured, name: str, key: str) -> None:
    configured(**{name: key})
    with pytest.raises(SystemExit, match=f"{name} is a well-known key") as refusal:
        refuse_unsafe_configuration()
    assert key not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (FERNET, "", "FERNET_KEY is not set"),
        (FERNET, f"{GOOD[FERNET]},46BKJoQYlPPOexq0OhDZnIlNepKFf87WFwLbfzqDDho=", "FERNET_KEY is a well-known key"),
        (SECRET, "", "SECRET_KEY is not set"),
        (SECRET, "short", "fewer than 16 characters"),
        (BACKENDS, "airflow.api.auth.backend.default", "lets anyone use the REST API"),
        (BACKENDS, "airflow.api.auth.backend.session, airflow.api.auth.backend.default", "lets anyone use"),
        ("BERT_ENVIRONMENT", "prod", "'local', 'preview', 'staging' or 'production'"),
    ],
)
def test_a_refusal_names_the_setting(configured, name: str, value: str, words: str) -> None:
    configured(**{name: value})
    with pytest.raises(SystemExit, match=words):
        refuse_unsafe_configuration()


def test_a_key_from_a_command_counts_as_set(configured, monkeypatch: pytest.MonkeyPatch) -> None:
    configured()
    monkeypatch.delenv(SECRET)
    monkeypatch.setenv(f"{SECRET}_CMD", "echo 0123456789abcdef0123456789abcdef")
    refuse_unsafe_configuration()


def test_everyone_having_a_role_is_refused(configured) -> None:
    class App:
        config = {"AUTH_ROLE_PUBLIC": "Admin"}

        class appbuilder:
            class sm:
                @staticmethod
                def find_user(username: str) -> None:
                    return None

    configured()
    with pytest.raises(SystemExit, match="gives everyone the role Admin"):
        refuse_unsafe_logins(App())


def test_a_wrong_setting_is_said_in_the_output_and_on_the_home_page_and_stops_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("BERT_", "AIRFLOW"))} | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "PYTHONPATH": str(root),
        "BERT_ENVIRONMENT": "local",
        "BERT_EPOCH": "3",
        "BERT_SEED": "<b>x</b>",
    }
    code = (
        "from airflow import settings; settings.initialize(); print([a.message for a in settings.DASHBOARD_UIALERTS])"
    )

    def started(**more: str) -> tuple[str, str]:
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, env=env | more, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout, done.stderr

    shown, output = started()
    for words in ("BERT_EPOCH is no setting; did you mean BERT_EPOCHS?", "BERT_SEED: it should be a valid integer"):
        assert words in shown
        assert words in output
    assert started(BERT_EPOCH="", BERT_SEED="")[0].splitlines()[-1] == "[]"
