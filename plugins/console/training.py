"""What a training is, for the pages and for the API: a draft that was handed over, and the run that has taken it."""

from collections.abc import Callable
from typing import Any

from flask import request

from include import lake, objects
from include.settings.console import ConsoleSettings
from include.uploads import drafts, lifecycle
from include.uploads.drafts import Draft, DraftRefused
from plugins.console.access import LISTENER, PIPELINE, Refused
from plugins.console.catalogue import of_request

PIECE_BYTES = 1 << 20
MIB = 1 << 20
FRONT_DOOR = (LISTENER, PIPELINE)
"""What has to be running so that a file in incoming/ is trained on."""


def receive(target: Any) -> None:
    """Writes the request's body to a file. Raises Refused if it is too large, or was cut off."""
    say, most = of_request(), ConsoleSettings().upload_mib
    length = request.content_length or 0
    if request.headers.get("Transfer-Encoding"):
        raise Refused(say("The browser does not say how large the file is."), 411)
    if length > most * MIB:
        raise Refused(
            say("The file is larger than {n} MiB: put it into the bucket, and give its address.", n=most), 413
        )
    body, left = request.environ["wsgi.input"], length  # request.stream ends at the limit that Airflow has for forms
    while left and (piece := body.read(min(left, PIECE_BYTES))):
        target.write(piece)
        left -= len(piece)
    target.flush()
    if left:
        raise Refused(say("The upload was cut off. Try again."))


def kept(keep: Callable[[], Draft]) -> Draft:
    """A draft that is made so. Raises Refused."""
    try:
        return keep()
    except DraftRefused as error:
        raise Refused(str(error)) from error


def draft(draft_id: str) -> Draft:
    """A draft. Raises Refused if there is none."""
    found = drafts.read(draft_id)
    if found is None:
        raise Refused(of_request()("There is no such file any more."), 404)
    return found


def run_id_of(draft: Draft) -> str:
    """The run that trains on files at an address."""
    return f"console__{draft.draft_id}"


def run_of(draft: Draft) -> str:
    """The run that has taken a draft; empty as long as none has."""
    if draft.kind == "address":
        return run_id_of(draft)
    batch_id = drafts.batch_of(draft)
    return lifecycle.read(batch_id).run_id if batch_id else ""


def outcome(dag_id: str, run_id: str) -> dict[str, Any]:
    """How a run ended, by its report; empty if it has not."""
    uri = lake.report(dag_id, run_id, "run.json")
    return objects.read_json(uri) if objects.exists(uri) else {}
