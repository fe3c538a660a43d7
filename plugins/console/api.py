"""The API for pages of somebody's own: a token starts a training and reads its state. And the page that gives tokens.

Airflow 2.11's own REST API has no plain tokens, and a password has no place in a browser's script. A token is sent as
``Authorization: Bearer bert_…``; cookies are not looked at, so that no other page can use somebody's session.
"""

import functools
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flask import Response, flash, make_response, redirect, request, url_for
from flask_appbuilder import expose
from werkzeug.wrappers import Response as BaseResponse

from include.settings.console import ConsoleSettings
from include.uploads import drafts, tokens
from include.uploads.tokens import Token
from plugins.console import runs, training
from plugins.console.access import HEADERS, PIPELINE, ROLLBACK, UNREACHABLE, Pages, Refused, person, route
from plugins.console.catalogue import of_request

logger = logging.getLogger(__name__)

View = Callable[..., Any]
ALLOWED_HEADERS = "Authorization, Content-Type"


def for_tokens(url: str, *, methods: Sequence[str]) -> Callable[[View], View]:
    """A route that takes a token, and nothing else, from the pages that the settings name."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(self: Any, **arguments: Any) -> Response:
            if request.method == "OPTIONS":
                answer = make_response("", 204)
                answer.headers["Access-Control-Allow-Methods"] = ", ".join(methods)
                answer.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
            else:
                answer = _answer(self, view, arguments)
            answer.headers.update(HEADERS)
            origin = request.headers.get("Origin", "")
            answer.headers["Vary"] = "Origin"
            if origin in ConsoleSettings().origins:
                answer.headers["Access-Control-Allow-Origin"] = origin
            return answer

        guarded.starts = PIPELINE  # type: ignore[attr-defined]
        guarded.takes_tokens = True  # type: ignore[attr-defined]
        exposed: View = expose(url, methods=[*methods, "OPTIONS"])(guarded)
        return exposed

    return decorate


def _answer(self: Any, view: View, arguments: dict[str, Any]) -> Response:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    try:
        token = tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            answer = make_response({"error": "send a token that holds: Authorization: Bearer bert_…"}, 401)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return make_response(view(self, token=token, **arguments))
    except Refused as refusal:
        return make_response({"error": str(refusal)}, refusal.status)
    except UNREACHABLE as error:
        logger.exception("the console's API could not answer %s", request.path)
        return make_response({"error": f"the database or the bucket does not answer ({type(error).__name__})"}, 503)


def exempt(app: Any) -> None:
    """Tokens are no cookies, so that nothing can be forged across sites."""
    if protection := app.extensions.get("csrf"):
        for name in ("start_training", "training_state"):
            protection.exempt(f"{__name__}.{name}")


class TokenApi(Pages):
    """``/console/api/v1``."""

    route_base = "/console/api/v1"
    default_view = "start_training"

    @for_tokens("/trainings", methods=["POST"])
    def start_training(self, token: Token) -> tuple[dict[str, str], int]:
        """Trains on the request's body, a file called ``?name=``, as if it had been dropped into incoming/."""
        with tempfile.NamedTemporaryFile() as target:
            training.receive(target)
            by = f"token:{token.name}"
            draft = training.kept(lambda: drafts.keep_file(Path(target.name), request.args.get("name", ""), by))
        drafts.hand_over(draft, by)
        runs.audit("console.train", PIPELINE, extra={"draft_id": draft.draft_id, "file": draft.name}, who=by)
        state = url_for("TokenApi.training_state", draft_id=draft.draft_id)
        return {"id": draft.draft_id, "state": state}, 202

    @for_tokens("/trainings/<draft_id>", methods=["GET"])
    def training_state(self, token: Token, draft_id: str) -> dict[str, Any]:
        """How far a training is that was started so: its run's steps, and in the end its outcome."""
        draft = training.draft(draft_id)
        if draft.by != f"token:{token.name}":
            raise Refused("there is no such training of this token", 404)
        run_id = training.run_of(draft)
        run = runs.find(PIPELINE, run_id) if run_id else None
        ended = training.outcome(PIPELINE, run_id) if run_id else {}
        return {
            "id": draft_id,
            "state": "waiting" if run is None else run.state,
            "run_id": run_id,
            "steps": [{"step": one.task_id, "state": one.state} for one in run.steps] if run else [],
            "paused": runs.paused(*training.FRONT_DOOR),
            "outcome": ended.get("outcome"),
            "reason": ended.get("reason"),
            "rows": ended.get("rows"),
        }


class AccessPages(Pages):
    """``/console/access``: who gives out tokens could train, approve and roll back as well."""

    route_base = "/console/access"
    default_view = "tokens"

    @route("/", starts=ROLLBACK)
    def tokens(self) -> str:
        """The page Access: all tokens, and a form for a new one."""
        return self._tokens()

    @route("/", methods=["POST"], starts=ROLLBACK)
    def create(self) -> str:
        """A new token, whose secret is shown this once."""
        try:
            token, secret = tokens.create(request.form.get("name", "").strip(), person())
        except ValueError as error:
            raise Refused(str(error)) from error
        runs.audit("console.token_created", PIPELINE, extra={"name": token.name})
        return self._tokens(created=token, secret=secret)

    @route("/<token_id>/revoke", methods=["POST"], starts=ROLLBACK)
    def revoke(self, token_id: str) -> BaseResponse:
        """Makes a token useless."""
        token = tokens.revoke(token_id, person())
        if token is None:
            raise Refused(of_request()("There is no such token."), 404)
        runs.audit("console.token_revoked", PIPELINE, extra={"name": token.name})
        flash(of_request()("The token {name} is of no use any more.", name=token.name), "info")
        return redirect(url_for("AccessPages.tokens"))

    def _tokens(self, created: Token | None = None, secret: str = "") -> str:
        return self.page(
            "access.html",
            tokens=tokens.every(),
            created=created,
            secret=secret,
            address=url_for("TokenApi.start_training", _external=True),
            origins=ConsoleSettings().origins,
        )
