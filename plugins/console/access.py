"""Who may see and do what: each route of the console says which DAG it starts, and asks Airflow whether one may.

Whoever may read the training pipeline sees the console. What a page starts is what one has to be allowed to start: over
Airflow's own pages and its REST API the same people may do the same things. With the roles of ``docs/security.md``, a
Viewer sees, a Trainer trains, and an Admin rolls back and approves.
"""

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from airflow.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.exceptions import AirflowNotFoundException
from airflow.www.extensions.init_auth_manager import get_auth_manager
from botocore.exceptions import BotoCoreError, ClientError
from flask import Response, current_app, g, make_response, redirect, render_template, request, url_for
from flask_appbuilder import BaseView, expose

from include.uploads import drafts
from plugins.console import catalogue

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent

PIPELINE, LISTENER = "bert_model_training_pipeline", "s3_upload_listener"
PREVIEW, ROLLBACK = "preview_upload", "model_rollback"
DECIDE_CHALLENGER, DECIDE_UPLOAD = "decide_challenger", "decide_upload"
REPRODUCE, DECIDE_LABELS = "reproduce_version", "decide_labels"

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Airflow's navigation has style attributes
        "img-src 'self' data:",
        "font-src 'self' data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",  # the last one: a view adds to it what else its script talks to
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
UNREACHABLE = (sa.exc.OperationalError, AirflowNotFoundException, BotoCoreError, ClientError, OSError)
"""What databases and buckets raise that are not there or do not let us in, and Airflow for a connection it lacks."""

View = Callable[..., Any]


class Refused(Exception):
    """What was asked for cannot be done; the message is for the person who asked."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def may_start(dag_id: str) -> bool:
    """Whether whoever asks may start this DAG."""
    manager = get_auth_manager()
    entity, details = DagAccessEntity.RUN, DagDetails(id=dag_id)
    return manager.is_logged_in() and bool(
        manager.is_authorized_dag(method="POST", access_entity=entity, details=details)
    )


def may_unpause(dag_id: str) -> bool:
    """Whether whoever asks may take this DAG out of its pause."""
    manager = get_auth_manager()
    return manager.is_logged_in() and bool(manager.is_authorized_dag(method="PUT", details=DagDetails(id=dag_id)))


def may_see() -> bool:
    """Whether whoever asks may see the console."""
    return bool(get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=PIPELINE)))


def may_read_logs(dag_id: str) -> bool:
    """Whether whoever asks may read what this DAG's tasks have logged."""
    entity = DagAccessEntity.TASK_LOGS
    return bool(get_auth_manager().is_authorized_dag(method="GET", access_entity=entity, details=DagDetails(id=dag_id)))


def person() -> str:
    """The login of whoever asks: it goes into the ledger and the audit log."""
    return str(get_auth_manager().get_user_name())


def route(url: str, *, methods: Sequence[str] = ("GET",), starts: str = "") -> Callable[[View], View]:
    """A route of the console. With ``starts``, only for those who may start that DAG, else for all who may see."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(self: Any, **arguments: Any) -> Response:
            allowed = may_see() and (not starts or may_start(starts))
            answer = _answer(self, view, arguments) if allowed else _refuse(starts)
            answer.headers.update(HEADERS)
            if also := g.pop("connects_to", ""):
                answer.headers["Content-Security-Policy"] = f"{POLICY} {also}"
            return answer

        guarded.starts = starts  # type: ignore[attr-defined]
        exposed: View = expose(url, methods=list(methods))(guarded)
        return exposed

    return decorate


def _answer(self: Any, view: View, arguments: dict[str, Any]) -> Response:
    try:
        return make_response(view(self, **arguments))
    except Refused as refusal:
        return _told(str(refusal), refusal.status)
    except UNREACHABLE as error:
        logger.exception("the console could not answer %s", request.path)
        say = catalogue.of_request()
        name = type(error).__name__
        return _told(say("The database or the bucket does not answer. Try again in a moment. ({name})", name=name), 503)


def _refuse(starts: str) -> Response:
    """To log in for those who have not, an explanation for all others."""
    manager, say = get_auth_manager(), catalogue.of_request()
    if not manager.is_logged_in():
        if request.method == "GET" and not wants_json():
            return make_response(redirect(manager.get_url_login(next_url=request.url)))
        return _told(say("Log in first."), 401)
    if not may_see():
        return _told(say("You may not see the console: it takes the right to read the DAG {dag}.", dag=PIPELINE), 403)
    return _told(say("You may not do that: it takes the right to start the DAG {dag}.", dag=starts), 403)


def wants_json() -> bool:
    """Whether it is a script that asks, and wants JSON in place of a page."""
    return bool(request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json")


def _told(message: str, status: int) -> Response:
    if wants_json():
        return make_response({"error": message}, status)
    return make_response(render_template("console/told.html", message=message, **surroundings()), status)


def surroundings() -> dict[str, Any]:
    """What every page needs: words in the viewer's language, and what the viewer may do."""
    say = catalogue.of_request()
    return {
        "t": say,
        "language": say.language,
        "may_train": may_start(PIPELINE),
        "may_roll_back": may_start(ROLLBACK),
        "may_approve": may_start(DECIDE_CHALLENGER),
        "may_decide_uploads": may_start(DECIDE_UPLOAD),
        "may_decide_labels": may_start(DECIDE_LABELS),
        "may_reproduce": may_start(REPRODUCE),
        "asset": asset,
        "file_name": file_name,
        "file_names": lambda keys: [file_name(key) for key in keys],
        "appbuilder": current_app.appbuilder,  # type: ignore[attr-defined]
    }


def file_name(key: str) -> str:
    """An upload as people call it: without the folders that the console itself has put it into."""
    name = key.removeprefix("incoming/")
    own = tuple(f"{folder}/" for folder in (drafts.FOLDER, drafts.LABELLED))
    return name.rsplit("/", 1)[-1] if name.startswith(own) else name


@functools.lru_cache
def _digest(name: str) -> str:
    return hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:12]


def asset(name: str) -> str:
    """The address of a static file, another one when its content is another: browsers keep what they have for hours."""
    return url_for("console.static", filename=name, v=_digest(name))


class Pages(BaseView):  # type: ignore[misc]  # Flask-AppBuilder is untyped here
    """Views of the console. A method that is exposed without ``route`` is refused when the webserver starts."""

    route_base = "/console"

    def _register_urls(self) -> None:
        for name in dir(self):
            method = getattr(self, name)
            if hasattr(method, "_urls") and not hasattr(method, "starts"):
                raise TypeError(f"{type(self).__name__}.{name} has no rule: expose it with console.access.route")
        super()._register_urls()

    def page(self, template: str, **context: Any) -> str:
        """A page's HTML, in the reader's language."""
        return render_template(f"console/{template}", **(surroundings() | context))
