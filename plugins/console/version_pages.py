"""The pages of a version: what it gets wrong, where it differs from another, how it is made again, and its files."""

import hashlib
import json
import posixpath
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from flask import Response, flash, redirect, request, stream_with_context, url_for
from werkzeug.wrappers import Response as BaseResponse

from include import lake, objects, presigned
from include.evaluation.mistakes import MISTAKES, Mistakes
from include.registry.ledger import left_by
from include.settings import settings
from include.settings.console import ConsoleSettings
from plugins.console import parquet, runs, warehouse
from plugins.console.access import PIPELINE, REPRODUCE, Pages, Refused, route
from plugins.console.catalogue import of_request

ANSWERS, EVALUATION = "answers.parquet", "evaluation.json"
PIECE_BYTES = 1 << 20
MOST_FILES = 200


class VersionPages(Pages):
    """``/console/versions``."""

    route_base = "/console/versions"
    default_view = "compare"

    @route("/")
    def compare(self) -> str:
        """Any two versions side by side; without two, the form that asks for them."""
        name = settings().model_name
        known = warehouse.versions(name)
        newest = [one.version for one in known]
        now = warehouse.champion(name)
        new = request.args.get("new", "") or (newest[0] if newest else "")
        old = request.args.get("old", "") or (now.version if now and now.version != new else "")
        asked = "old" in request.args and "new" in request.args
        pair = [_made(one) for one in (old, new)] if asked else []
        return self.page("compare.html", versions=known, old=old, new=new, pair=pair, asked=asked)

    @route("/changed")
    def changed(self) -> dict[str, Any]:
        """The answers by which two versions differ."""
        say, name = of_request(), settings().model_name
        old, new = (_made(request.args.get(which, "")) for which in ("old", "new"))
        uris = [left_by(one.dag_run_id, ANSWERS) for one in (old, new)]
        for uri, one in zip(uris, (old, new), strict=True):
            if not uri:
                raise Refused(say("What version {version} answered was not kept.", version=one.version), 404)
        found = _changed(uris[0], uris[1], warehouse.label_mapping(name))
        if "error" in found:
            raise Refused(say("They answered no golden row under the same label, so they cannot be compared."), 409)
        return found

    @route("/<version>")
    def version(self, version: str) -> str:
        """One version: what it gets wrong, how it is made again, its files."""
        made = _made(version)
        files = objects.find(lake.model(settings().model_name, version))
        prefix = lake.model(settings().model_name, version)
        return self.page(
            "version.html",
            version=version,
            made=made,
            mistakes=mistakes_of(made.dag_run_id),
            files=[uri.removeprefix(prefix) for uri in files[:MOST_FILES]],
        )

    @route("/<version>/reproduce", methods=["POST"], starts=REPRODUCE)
    def reproduce(self, version: str) -> BaseResponse:
        """Has a version trained again, and compared."""
        _made(version)
        runs.start_asked(REPRODUCE, {"version": version})
        flash(of_request()("It is trained again; the run's note will say whether it is the same."), "info")
        return redirect(url_for("VersionPages.version", version=version))

    @route("/<version>/files/<path:name>", starts=PIPELINE)
    def file(self, version: str, name: str) -> Any:
        """One of its files: from the bucket itself, or piece by piece where that is a folder of this machine."""
        model = settings().model_name
        uri = lake.model(model, version, name)
        if ".." in name.split("/") or uri not in objects.find(lake.model(model, version)):
            raise Refused(of_request()("There is no such file."), 404)
        called = f"{model}-{version}-{posixpath.basename(name)}"
        if address := presigned.to_read(uri, called, endpoint=ConsoleSettings().s3_url):
            return redirect(address)
        headers = {"Content-Disposition": f'attachment; filename="{called}"'}
        return Response(stream_with_context(_pieces(uri)), mimetype="application/octet-stream", headers=headers)


def mistakes_of(dag_run_id: str) -> Mistakes | None:
    """What the version of a run gets wrong; None if that was not kept."""
    if uri := left_by(dag_run_id, MISTAKES):
        return Mistakes.model_validate(objects.read_json(uri))
    if uri := left_by(dag_run_id, EVALUATION):
        return Mistakes.of_evaluation(objects.read_json(uri))
    return None


def _changed(old: str, new: str, label_mapping: dict[str, str]) -> dict[str, Any]:
    """What two versions answer differently; kept beside the newer one's answers, since it never changes."""
    told_by = json.dumps([old, objects.etag(old), objects.etag(new), label_mapping, _code_of_changes()], sort_keys=True)
    kept = f"{new.removesuffix(ANSWERS)}changed/{hashlib.sha256(told_by.encode()).hexdigest()[:16]}.json"
    if objects.exists(kept):
        return objects.read_json(kept)
    found = parquet.changed(old, new, label_mapping)
    if "error" not in found:
        objects.write_json(kept, found)
    return found


@lru_cache(maxsize=1)
def _code_of_changes() -> str:
    """The hash of what compares: another release may do it otherwise."""
    return hashlib.sha256((parquet.PROJECT / "include/evaluation/changed.py").read_bytes()).hexdigest()[:8]


def _made(version: str) -> warehouse.Decision:
    found = warehouse.made(settings().model_name, version) if version else None
    if found is None:
        raise Refused(of_request()("There is no version {version!r}.", version=version), 404)
    return found


def _pieces(uri: str) -> Iterator[bytes]:
    with objects.filesystem(uri).open(uri, "rb") as content:
        while piece := content.read(PIECE_BYTES):
            yield piece
