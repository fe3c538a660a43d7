"""The pages Data: what was uploaded and what became of it, and rejected rows to be mended and sent back."""

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Response, request, stream_with_context, url_for

from include import lake, objects
from include.orchestration.batches import NAMES
from include.registry.ledger import left_by
from include.uploads import drafts, lifecycle
from include.uploads.lifecycle import State
from include.uploads.open_batches import in_parallel
from include.uploads.records import Batch, read_batch
from plugins.console import parquet, rows, runs, warehouse
from plugins.console.access import PIPELINE, Pages, Refused, person, route
from plugins.console.catalogue import of_request

ROWS_AT_ONCE = 50
SHOWN_FILES = 200


class DataPages(Pages):
    """``/console/data``."""

    route_base = "/console/data"
    default_view = "data"

    @route("/")
    def data(self) -> str:
        """All uploads, a page at a time."""
        state, page = request.args.get("state", ""), max(request.args.get("page", 1, type=int), 1)
        shown, more = warehouse.uploads(state=state if state in {str(one) for one in State} else "", page=page)
        nameless = [upload.batch_id for upload in shown if upload.names is None]
        names = dict(zip(nameless, in_parallel(_names, nameless), strict=True)) if nameless else {}
        return self.page(
            "data.html",
            uploads=[(upload, upload.names or names.get(upload.batch_id, [])) for upload in shown],
            counts=warehouse.counts_of_uploads(),
            state=state,
            number=page,
            more=more,
        )

    @route("/batches/<batch_id>")
    def batch(self, batch_id: str) -> str:
        """One upload: its files, its life, and what became of its rows."""
        found = _batch(batch_id)
        life = lifecycle.read(batch_id)
        report = _report(life.run_id)
        return self.page(
            "batch.html",
            batch=found,
            files=found.files[:SHOWN_FILES],
            life=life,
            moves=_moves(batch_id),
            report=report,
            accounts={file["key"]: file for file in report.get("files", []) if file["batch_id"] == batch_id},
            has_rejected=objects.exists(_rejected_uri(batch_id)),
        )

    @route("/batches/<batch_id>/rejected.csv")
    def rejected_csv(self, batch_id: str) -> Response:
        """Its rejected rows as a file to mend."""
        uri = _existing(batch_id)
        headers = {"Content-Disposition": f"attachment; filename=rejected-{lake.slug(batch_id)}.csv"}
        return Response(stream_with_context(parquet.rejected_as_csv(uri)), mimetype="text/csv", headers=headers)

    @route("/batches/<batch_id>/mend", starts=PIPELINE)
    def mend(self, batch_id: str) -> str:
        """A table in which rejected rows are mended."""
        _existing(batch_id)
        return self.page("mend.html", batch_id=batch_id, size=ROWS_AT_ONCE)

    @route("/batches/<batch_id>/rejected")
    def rejected_rows(self, batch_id: str) -> dict[str, Any]:
        """A batch's rejected rows as JSON, a page at a time."""
        offset = max(request.args.get("offset", 0, type=int), 0)
        found = parquet.some_rejected(_existing(batch_id), offset, ROWS_AT_ONCE + 1)
        return {"rows": found[:ROWS_AT_ONCE], "more": len(found) > ROWS_AT_ONCE}

    @route("/batches/<batch_id>/mended", methods=["POST"], starts=PIPELINE)
    def mended(self, batch_id: str) -> tuple[dict[str, str], int]:
        """Makes a file of mended rows, and has it looked at like any other."""
        _existing(batch_id)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mended.csv"
            rows.write(path, rows.posted())
            draft = drafts.keep_file(path, f"mended-{lake.slug(batch_id)[:80]}.csv", person())
        runs.start_preview(draft.draft_id, draft.name)
        return {"page": url_for("TrainPages.draft", draft_id=draft.draft_id)}, 201


@lru_cache(maxsize=2_000)
def _sealed(batch_id: str) -> Batch:
    """A batch's manifest, which never changes. Raises LookupError, so that what is not there yet is asked for again."""
    found = read_batch(batch_id)
    if found is None:
        raise LookupError(batch_id)
    return found


def _names(batch_id: str) -> list[str]:
    """The names of a batch's first files, by its manifest; none if somebody has deleted it."""
    try:
        return [file.key.removeprefix("incoming/") for file in _sealed(batch_id).files[:NAMES]]
    except LookupError:
        return []


def _batch(batch_id: str) -> Batch:
    if warehouse.upload(batch_id) is None:
        raise Refused(of_request()("There is no such upload."), 404)
    try:
        return _sealed(batch_id)
    except LookupError:
        raise Refused(of_request()("There is no such upload any more."), 404) from None


def _moves(batch_id: str) -> list[lifecycle.Entry]:
    uris = objects.find(lake.claims(batch_id, "life/"))[-50:]
    return [lifecycle.Entry.model_validate_json(content) for content in in_parallel(objects.read_bytes, uris)]


def _report(run_id: str) -> dict[str, Any]:
    """How the run that has a batch ended; empty if it has not, or nobody knows."""
    uri = left_by(run_id, "run.json") if run_id else ""
    return objects.read_json(uri) if uri else {}


def _rejected_uri(batch_id: str) -> str:
    return lake.quarantine(batch_id, "rejected.parquet")


def _existing(batch_id: str) -> str:
    """Where a batch's rejected rows lie. Raises Refused if there is no such batch, or none was rejected."""
    _batch(batch_id)
    uri = _rejected_uri(batch_id)
    if not objects.exists(uri):
        raise Refused(of_request()("No row was rejected."), 404)
    return uri
