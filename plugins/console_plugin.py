"""The console: pages for people who know their data, and not Airflow, in Airflow's own page."""

from pathlib import Path

from airflow.plugins_manager import AirflowPlugin
from flask import Blueprint
from flask.blueprints import BlueprintSetupState

FOLDER = Path(__file__).parent / "console"

blueprint = Blueprint(
    "console",
    __name__,
    root_path=str(FOLDER),
    template_folder="templates",
    static_folder="static",
    static_url_path="/console/static",
)


@blueprint.record_once
def register(state: BlueprintSetupState) -> None:
    """Adds the pages while Airflow builds its webserver: all other processes import plugins, too, and need none."""
    from plugins import console

    console.register(state.app)


class Console(AirflowPlugin):  # type: ignore[misc]  # airflow is untyped here
    """The pages stand in ``plugins/console``."""

    name = "console"
    flask_blueprints = [blueprint]
