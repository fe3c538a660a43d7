"""The console: pages in Airflow's own page for people who know their data, and not Airflow.

``access`` says who may do what, ``warehouse`` and ``runs`` read and start things, each of the other modules is a part
of the pages, with its templates in ``templates/console``. Nothing here reads a model or a table of rows: what is heavy
is done by a DAG, and shown from what that has left.
"""

import threading
from pathlib import Path
from typing import Any

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
    once = threading.Lock()

    @app.before_request  # type: ignore[untyped-decorator]  # Flask's application is Any here
    def prepare() -> None:
        """At a worker's first request, which mostly asks for its health; commands that build an app have none."""
        if once.acquire(blocking=False):
            threading.Thread(target=_prepare, args=(app,), daemon=True).start()


def _prepare(app: Any) -> None:
    """Makes what a worker's first pages would have to wait for: their templates' code, and the client of the bucket.

    Airflow begins its workers anew every hour and a half.
    """
    from include import lake

    for path in sorted((Path(__file__).parent / "templates" / "console").glob("*.html")):
        app.jinja_env.get_template(f"console/{path.name}")
    if lake.root().startswith("s3://"):
        lake.filesystem(lake.root()).connect()
