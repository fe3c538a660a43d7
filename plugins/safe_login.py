"""Looks at the logins when the webserver starts."""

from airflow.plugins_manager import AirflowPlugin
from flask import Blueprint

from include.orchestration.safe_start import refuse_unsafe_logins

blueprint = Blueprint("safe_login", __name__)
blueprint.record_once(lambda state: refuse_unsafe_logins(state.app))


class SafeLogin(AirflowPlugin):  # type: ignore[misc]  # airflow is untyped here
    """A blueprint without pages: Airflow registers it while it builds the webserver."""

    name = "safe_login"
    flask_blueprints = [blueprint]
