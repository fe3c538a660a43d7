"""The console: pages in Airflow's own page for people who know their data, and not Airflow.

``access`` says who may do what, ``warehouse`` and ``runs`` read and start things, each of the other modules is a part
of the pages, with its templates in ``templates/console``. Nothing here reads a model or a table of rows: what is heavy
is done by a DAG, and shown from what that has left.
"""

import os
import threading
from pathlib import Path
from typing import Any

from include import lake, objects
from include.settings.console import GunicornSettings

CATEGORY = "Console"
MENU = ("Model", "Train", "Data", "Watch", "Access")
"""Its entries in Airflow's menu, which a role has to be allowed to see: ``create_trainer_role`` gives them out."""


def menu_name(entry: str) -> str:
    """An entry's name among Airflow's resources."""
    return f"{CATEGORY} {entry}"


def register(app: Any) -> None:
    """Adds the pages to Airflow's webserver."""
    from plugins.console import api
    from plugins.console.data_pages import DataPages
    from plugins.console.label_pages import LabelPages
    from plugins.console.model_pages import ModelPages
    from plugins.console.train_pages import TrainPages, exempt_upload
    from plugins.console.version_pages import VersionPages
    from plugins.console.watch_pages import WatchPages

    pages = {
        "Model": ModelPages,
        "Train": TrainPages,
        "Data": DataPages,
        "Watch": WatchPages,
        "Access": api.AccessPages,
    }
    for entry, view in pages.items():
        app.appbuilder.add_view(view, menu_name(entry), label=entry, category=CATEGORY)
    for view in (VersionPages, LabelPages, api.TokenApi):
        app.appbuilder.add_view_no_menu(view)
    exempt_upload(app)
    api.exempt(app)
    if GunicornSettings().server_software.startswith("gunicorn"):  # and not a command or a test
        prepare(app)
        os.register_at_fork(after_in_child=lambda: threading.Thread(target=connect, daemon=True).start())


def prepare(app: Any) -> None:
    """Makes what a worker's first pages would have to wait for: their templates' code, and S3's modules.

    Airflow builds the application once and forks its workers from it, time and again, so that they have what is made
    here. A client cannot be handed on: each makes its own as it begins.
    """
    for path in sorted((Path(__file__).parent / "templates" / "console").glob("*.html")):
        app.jinja_env.get_template(f"console/{path.name}")
    objects.filesystem(lake.root())  # imports S3's client


def connect() -> None:
    """Makes the client of the bucket that a worker's first pages would have to wait for."""
    if lake.root().startswith("s3://"):
        objects.filesystem(lake.root()).connect()
