"""The pages Train: drop a file, see what would become of it, train, and watch the run until its decision."""

import tempfile
from pathlib import Path
from typing import Any

from flask import Response, current_app, flash, g, redirect, request, url_for
from flask_wtf.csrf import validate_csrf
from werkzeug.wrappers import Response as BaseResponse
from wtforms import ValidationError

from include import lake, objects, presigned
from include.registry.ledger import TRAINING_DAGS
from include.settings import settings
from include.settings.console import ConsoleSettings
from include.uploads import drafts, multipart
from include.uploads.drafts import Draft
from plugins.console import progress, runs, training, warehouse
from plugins.console.access import (
    PIPELINE,
    PREVIEW,
    Pages,
    Refused,
    may_read_logs,
    may_unpause,
    person,
    route,
    wants_json,
)
from plugins.console.catalogue import of_request

UPLOAD = "plugins.console.train_pages.upload"
MOST_COPIED_BYTES = 50 << 30
"""A file is copied inside S3 while *Train* is answered, for which the webserver has two minutes."""


def exempt_upload(app: Any) -> None:
    """The upload's body is a file, and larger than Airflow lets forms be: it looks at its CSRF token itself."""
    if protection := app.extensions.get("csrf"):  # Airflow's own commands build an app without
        protection.exempt(UPLOAD)


class TrainPages(Pages):
    """``/console/train``."""

    route_base = "/console/train"
    default_view = "train"

    @route("/")
    def train(self) -> str:
        """Where a file is dropped, and what was looked at lately."""
        store = presigned.origin(ConsoleSettings().s3_url)
        g.connects_to = store
        newest = runs.recent(PIPELINE)
        return self.page(
            "train.html",
            most_mib=ConsoleSettings().upload_mib,
            direct_gib=_most_bytes() >> 30 if store else 0,
            looked_at=[one for one in runs.recent(PREVIEW) if one.conf.get("draft_id")],
            runs=newest,
            decisions=warehouse.decisions_of(settings().model_name, [one.run_id for one in newest]),
            **_pauses(*training.FRONT_DOOR, PREVIEW),
        )

    @route("/files", methods=["POST"], starts=PIPELINE)
    def upload(self) -> Any:
        """Keeps the request's body as a draft, and has it looked at."""
        _check_token()
        with tempfile.NamedTemporaryFile() as target:
            training.receive(target)
            draft = training.kept(lambda: drafts.keep_file(Path(target.name), request.args.get("name", ""), person()))
        return _look_at(draft)

    @route("/uploads", methods=["POST"], starts=PIPELINE)
    def direct(self) -> tuple[dict[str, Any], int]:
        """Where the browser may put a file that is too large to pass the webserver: whole, or in parts."""
        name, size = request.form.get("name", ""), request.form.get("size", 0, type=int)
        config, say = ConsoleSettings(), of_request()
        if not presigned.origin(config.s3_url):
            raise Refused(say("This bucket takes no files from a browser."), 409)
        if size > _most_bytes():
            n = say.number(_most_bytes() >> 30)
            raise Refused(
                say("The file is larger than {n} GiB: put it into the bucket, and give its address.", n=n), 413
            )
        part = config.part_mib * training.MIB
        draft = training.kept(lambda: drafts.expect_file(name, size, person(), one_request=part))
        come = url_for("TrainPages.come", draft_id=draft.draft_id)
        if not draft.upload_id:
            return {"put": presigned.to_write(draft.uri, endpoint=config.s3_url), "come": come}, 201
        return {
            "part": url_for("TrainPages.part", draft_id=draft.draft_id),
            "part_bytes": part,
            "come": come,
            "give_up": url_for("TrainPages.give_up", draft_id=draft.draft_id),
        }, 201

    @route("/uploads/<draft_id>/part", starts=PIPELINE)
    def part(self, draft_id: str) -> dict[str, str]:
        """Where the browser may put the part ``?number=`` of a file, at once and for an hour."""
        draft, number = _own_in_parts(draft_id), request.args.get("number", 0, type=int)
        if not 1 <= number <= multipart.MOST_PARTS:
            raise Refused(of_request()("The upload was cut off. Try again."))
        endpoint = ConsoleSettings().s3_url
        return {"put": presigned.to_write_part(draft.uri, draft.upload_id, number, endpoint=endpoint)}

    @route("/uploads/<draft_id>/give-up", methods=["POST"], starts=PIPELINE)
    def give_up(self, draft_id: str) -> tuple[str, int]:
        """Deletes the parts of a file that have come: whoever sent them has gone."""
        drafts.give_up(_own_in_parts(draft_id))
        return "", 204

    @route("/uploads/<draft_id>", methods=["POST"], starts=PIPELINE)
    def come(self, draft_id: str) -> Any:
        """Has a file looked at that the browser has put into the bucket."""
        draft = training.draft(draft_id)
        try:
            whole = drafts.has_come(draft)
        except FileNotFoundError:  # it was given up
            whole = False
        if not whole:
            raise Refused(of_request()("The upload was cut off. Try again."), 409)
        return _look_at(draft)

    @route("/addresses", methods=["POST"], starts=PIPELINE)
    def address(self) -> Any:
        """Has files looked at that lie in S3 already."""
        return _look_at(training.kept(lambda: drafts.keep_address(request.form.get("address", ""), person())))

    @route("/drafts/<draft_id>")
    def draft(self, draft_id: str) -> str:
        """What would become of a file, and the button."""
        found = training.draft(draft_id)
        seconds = runs.typical_seconds()
        config = ConsoleSettings()
        return self.page(
            "draft.html",
            draft=found,
            preview=drafts.preview_of(draft_id),
            handed_over=drafts.handed_over(draft_id),
            looking=runs.preview_state(draft_id),
            has_rejected=objects.exists(lake.draft(draft_id, "rejected.csv")),
            busy=runs.is_busy(),
            minutes=seconds / 60 if seconds else None,
            price=seconds / 3600 * config.price_per_hour if seconds and config.price_per_hour else None,
            currency=config.currency,
            **_pauses(*training.FRONT_DOOR, PREVIEW),
        )

    @route("/drafts/<draft_id>/state")
    def draft_state(self, draft_id: str) -> dict[str, Any]:
        """How far a draft is: it is looked at, it was, it waits to be claimed, a run has it."""
        found = training.draft(draft_id)
        looking = runs.preview_state(draft_id)
        run_id = training.run_of(found) if drafts.handed_over(draft_id) else ""
        return {
            "looked_at": drafts.preview_of(draft_id) is not None,
            "looking": looking.state if looking else "",
            "run": url_for("TrainPages.run", run_id=run_id) if run_id else "",
        }

    @route("/drafts/<draft_id>/rejected.csv")
    def draft_rejected(self, draft_id: str) -> Response:
        """The rejected rows, to mend and upload."""
        training.draft(draft_id)
        uri = lake.draft(draft_id, "rejected.csv")
        if not objects.exists(uri):
            raise Refused(of_request()("No row was rejected."), 404)
        headers = {"Content-Disposition": f"attachment; filename=rejected-{draft_id}.csv"}
        return Response(objects.read_bytes(uri), mimetype="text/csv", headers=headers)

    @route("/drafts/<draft_id>/train", methods=["POST"], starts=PIPELINE)
    def hand_over(self, draft_id: str) -> BaseResponse:
        """Uploads the draft as if it had been dropped into incoming/; once, however often it is asked for."""
        found, preview = training.draft(draft_id), drafts.preview_of(draft_id)
        if preview is None or preview.outcome in ("unreadable", "nothing_to_train"):
            raise Refused(of_request()("There is nothing in this file that could be trained on."), 409)
        first = drafts.hand_over(found, person())
        if found.kind == "address":
            runs.start(PIPELINE, training.run_id_of(found), {"dataset_uri": found.uri})
        if first:
            runs.audit("console.train", PIPELINE, extra={"draft_id": draft_id, "file": found.name})
        return redirect(url_for("TrainPages.draft", draft_id=draft_id))

    @route("/unpause", methods=["POST"], starts=PIPELINE)
    def unpause(self) -> BaseResponse:
        """Takes DAGs out of their pause that the front door needs."""
        for dag_id in runs.paused(*training.FRONT_DOOR, PREVIEW):
            if may_unpause(dag_id):
                runs.unpause(dag_id)
        if left := runs.paused(*training.FRONT_DOOR, PREVIEW):
            raise Refused(of_request()("You may not unpause {dags}: ask an administrator.", dags=", ".join(left)), 403)
        flash(of_request()("Training goes on."), "info")
        target = request.form.get("draft_id", "")
        return redirect(
            url_for("TrainPages.draft", draft_id=target) if drafts.ID.fullmatch(target) else url_for("TrainPages.train")
        )

    @route("/run")
    def run(self) -> str:
        """The page of a run, which follows it as it goes."""
        return self.page("run.html", run=_run(), outcome=_outcome(), **_pauses(PIPELINE))

    @route("/run/state")
    def run_state(self) -> dict[str, Any]:
        """The run's steps and epochs as they come."""
        found = _run()
        trains = any(step.task_id == progress.TRAIN_TASK and step.state == "running" for step in found.steps)
        known = request.args.get("known", default=0, type=int)  # epochs that the page has
        return {
            "state": found.state,
            "over": found.is_over,
            "steps": [step.model_dump() for step in found.steps],
            "training": progress.of_run(found.run_id) if trains or not known else {},
        }

    @route("/run/log")
    def run_log(self) -> dict[str, Any]:
        """The end of the log of the step that is running, or has failed."""
        found = _run()
        if not may_read_logs(found.dag_id):
            raise Refused(of_request()("You may not read the logs of {dag}.", dag=found.dag_id), 403)
        log = runs.log_tail(found.dag_id, found.run_id)
        return log | {"step": of_request()(log["step"])}


def _pauses(*dag_ids: str) -> dict[str, Any]:
    found = runs.paused(*dag_ids)
    return {"paused": found, "may_unpause": [dag_id for dag_id in found if may_unpause(dag_id)]}


def _most_bytes() -> int:
    """Of a file that a browser puts into the bucket."""
    return min(multipart.MOST_PARTS * ConsoleSettings().part_mib * training.MIB, MOST_COPIED_BYTES)


def _own_in_parts(draft_id: str) -> Draft:
    """A file that whoever asks sends in parts. Raises Refused."""
    found = training.draft(draft_id)
    if not found.upload_id or found.by != person():
        raise Refused(of_request()("There is no such file any more."), 404)
    return found


def _check_token() -> None:
    """Raises Refused unless the request's header has the session's CSRF token."""
    if not current_app.config.get("WTF_CSRF_ENABLED", True):
        return
    try:
        validate_csrf(request.headers.get("X-CSRFToken"))
    except ValidationError as error:
        raise Refused(str(error), 400) from error


def _look_at(draft: Draft) -> Any:
    runs.start_preview(draft.draft_id, draft.name)
    page = url_for("TrainPages.draft", draft_id=draft.draft_id)
    return ({"draft_id": draft.draft_id, "page": page}, 201) if wants_json() else redirect(page)


def _named() -> tuple[str, str]:
    dag_id, run_id = request.args.get("dag_id", PIPELINE), request.args.get("run_id", "")
    if dag_id not in TRAINING_DAGS:
        raise Refused(of_request()("{dag} is no DAG that trains.", dag=dag_id), 404)
    return dag_id, run_id


def _run() -> runs.Run:
    found = runs.find(*_named())
    if found is None:
        raise Refused(of_request()("There is no such run any more."), 404)
    return found


def _outcome() -> dict[str, Any]:
    return training.outcome(*_named())
