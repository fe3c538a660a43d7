"""What has to be true before Airflow may start elsewhere than on a developer's machine (``BERT_ENVIRONMENT``).

A developer's machine says that it is one (``local``): `make up`, the Docker stack and the tests do. A deployment that
has forgotten to say what it is is none.

Two moments, because only the webserver knows who can log in: ``plugins/airflow_local_settings.py`` checks the
configuration in every process, ``plugins/safe_login.py`` the logins in the webserver. Both end the process; an
exception that Airflow catches would only be logged.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

from airflow.configuration import conf
from pydantic import ValidationError
from werkzeug.security import check_password_hash

from include.settings import Deployment, faults, is_set_for_airflow

WELL_KNOWN_KEYS = {
    # Fernet keys
    "d6Vefz3G9U_ynXB3cr7y_Ak35tAHkEGAVxuz_B-jzWw=": "the Astro CLI's",
    "YmVydC1vbi1hc3RybyAgICAgICAgICAgICAgICAgICA=": "this project's own for containers on one machine",
    "46BKJoQYlPPOexq0OhDZnIlNepKFf87WFwLbfzqDDho=": "the example of puckel's and Bitnami's images",
    "81HqDtbqAywKSOumSha3BhWNOdQ26slT6K0YaZeZyPs=": "an example that many tutorials copy",
    "cryptography_not_found_storing_passwords_in_plain_text": "Airflow's stand-in for no key",
    # The webserver's secret keys; most are also too short
    "temporary_key": "Airflow's default until 2.2",
    "static_key": "an example that many tutorials copy",
    "a25mQ1FHTUh3MnFRSk5KMEIyVVU2YmN0VGRyYTVXY08=": "the example of Bitnami's images",
}
# The webserver's on a developer's machine: the project's name, and six digits of a hash of its folder's path.
CLI_SECRET_KEY = re.compile(r"bert-on-astro(_[0-9a-f]{6})?")
SHORTEST_SECRET_KEY = 16  # characters
NOTHING_SETS_IT = " since nothing sets it (on a developer's machine set it to local)"
DEFAULT_LOGINS = (("admin", "admin"), ("airflow", "airflow"))

_NEW_FERNET_KEY = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
_NEW_SECRET_KEY = "python -c 'import secrets; print(secrets.token_hex(32))'"


def refuse_unsafe_configuration() -> None:
    """Ends the process if the keys or the API's authentication are not fit for this environment. Raises SystemExit."""
    if _environment() != "local":
        _refuse([*_key_faults(), *_api_faults()])


def refuse_unsafe_logins(app: Any) -> None:
    """Ends the webserver if anyone can log in: as nobody, or by a default password. Raises SystemExit.

    Args:
        app: Airflow's Flask application with its security manager.
    """
    if _environment() != "local":
        _refuse(list(_login_faults(app)))


def alerts_about_settings() -> list[Any]:
    """What Airflow's home page shows of ``BERT_*`` variables that are wrong; each process's output has it, too.

    They stop nothing here: one misspelt name must not take a whole Airflow down.
    """
    found = [f"The environment has a setting that is wrong. {fault}" for fault in faults()]
    if not found:
        return []
    from airflow.www.utils import UIAlert  # takes its time to import

    print("\n".join(found), file=sys.stderr, flush=True)  # Airflow's logging is not set up yet
    return [UIAlert(message, category="error") for message in found]


def _environment() -> str:
    try:
        return Deployment().environment
    except ValidationError as error:
        raise SystemExit(f"Airflow does not start. BERT_ENVIRONMENT: {error.errors()[0]['msg']}.") from error


def _refuse(faults: list[str]) -> None:
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        unset = "" if Deployment().model_fields_set else NOTHING_SETS_IT
        raise SystemExit(f"Airflow does not start: BERT_ENVIRONMENT is {_environment()}{unset}, and{lines}")


def _key_faults() -> Iterator[str]:
    for section, option, command in (
        ("core", "fernet_key", _NEW_FERNET_KEY),
        ("webserver", "secret_key", _NEW_SECRET_KEY),
    ):
        name = f"AIRFLOW__{section}__{option}".upper()
        # What Airflow makes up when nothing is set differs from container to container.
        value = conf.get(section, option, fallback="") if is_set_for_airflow(section, option) else ""
        remedy = f"Set it, the same for all components, to what this prints: {command}"
        if not value:
            yield f"{name} is not set. {remedy}"
        for key in value.split(",") if option == "fernet_key" else [value]:  # Fernet keys may be rotated: new,old
            if whose := _whose(key.strip()):
                yield f"{name} is a well-known key ({whose}). {remedy}"
            elif option == "secret_key" and 0 < len(key) < SHORTEST_SECRET_KEY:
                yield f"{name} has fewer than {SHORTEST_SECRET_KEY} characters. {remedy}"


def _whose(key: str) -> str:
    """Where everybody can read a key; empty if it is nobody's."""
    return (
        "the Astro CLI's, made of the project's name" if CLI_SECRET_KEY.fullmatch(key) else WELL_KNOWN_KEYS.get(key, "")
    )


def _api_faults() -> Iterator[str]:
    backends = [backend.strip() for backend in conf.get("api", "auth_backends", fallback="").split(",")]
    if any(not backend or backend.endswith(".default") for backend in backends):
        yield (
            "AIRFLOW__API__AUTH_BACKENDS lets anyone use the REST API. Set it to airflow.api.auth.backend.session, and "
            "for passwords add ,airflow.api.auth.backend.basic_auth"
        )


def _login_faults(app: Any) -> Iterator[str]:
    public = app.config.get("AUTH_ROLE_PUBLIC")
    if public and public != "Public":
        yield f"AUTH_ROLE_PUBLIC in webserver_config.py gives everyone the role {public}. Remove it"
    for name, password in DEFAULT_LOGINS:
        user = app.appbuilder.sm.find_user(username=name)
        if user and user.is_active and user.password and check_password_hash(user.password, password):
            yield (
                # reset-password fails in 2.11.2 (apache/airflow#63830)
                f"the user {name} has the password {password}. Delete the user and create one with another: "
                f"BERT_ENVIRONMENT=local airflow users delete --username {name}"
            )
