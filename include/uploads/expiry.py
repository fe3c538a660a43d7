"""Deletes what is old of claims: index entries and files of batches that ended long ago, marks of batches never sealed.

Manifests and lives stay: they are small, and say what was uploaded and what became of it. An entry of the index goes
only if its upload does not lie in ``incoming/``, and all its generations go together, the newest first; each is deleted
on condition that nobody has written it since. A batch that has not ended keeps everything.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby, takewhile

from include import lake, objects
from include.objects import Stored
from include.uploads import claims
from include.uploads.lifecycle import ENDS
from include.uploads.open_batches import in_parallel
from include.uploads.records import Round

NEVER_SEALED = timedelta(days=1)  # a claim that was given up takes at most a lease


def expire_claims(age: timedelta) -> dict[str, int]:
    """Deletes what is older than ``age``; how many index entries, files and marks."""
    known = Round()
    return {"index": _expire_index(age, known), "files": _expire_files(age, known), "marks": _expire_marks()}


def older(listed: Iterable[Stored], age: timedelta) -> list[Stored]:
    """Those that were written longer ago."""
    limit = datetime.now(UTC) - age
    return [one for one in listed if one.modified < limit]


def delete_all(listed: Iterable[Stored]) -> int:
    """Deletes objects that nobody has written since they were listed; how many."""
    return sum(in_parallel(lambda one: objects.delete(one.uri, one.etag), listed))


def _expire_index(age: timedelta, known: Round) -> int:
    listed = objects.listing(lake.claims("index"))
    waiting = {lake.claim_index(upload.key, upload.etag) for upload in claims.uploads()}
    deleted = 0
    for digest, group in groupby(listed, key=lambda one: one.uri.rsplit("/", 1)[-1].split(".")[0]):
        entries = list(group)
        if lake.claims("index", digest) in waiting or len(older(entries, age)) < len(entries):
            continue
        if all(in_parallel(lambda one: _may_go(one, known), entries)):
            newest_first = sorted(entries, key=lambda one: _generation(one.uri), reverse=True)
            # An older one never goes before a newer one: somebody could claim the upload a second time.
            deleted += sum(1 for _ in takewhile(lambda one: objects.delete(one.uri, one.etag), newest_first))
    return deleted


def _may_go(entry: Stored, known: Round) -> bool:
    batch_id = objects.read_json(entry.uri)["batch_id"]
    if known.batch(batch_id) is None:
        return bool(older([entry], NEVER_SEALED))
    return _has_ended(batch_id, known)


def _generation(uri: str) -> int:
    return int(uri.rsplit("/", 1)[-1].partition(".")[2] or 0)


def _expire_files(age: timedelta, known: Round) -> int:
    claimed = lake.claims()
    files: dict[str, list[Stored]] = {}
    for one in objects.listing(claimed):
        batch_id, _, name = one.uri.removeprefix(claimed).partition("/")
        if name.startswith("files/"):
            files.setdefault(batch_id, []).append(one)
    limit = datetime.now(UTC) - age
    ended = [
        batch_id
        for batch_id in files
        if known.batch(batch_id) is not None and _has_ended(batch_id, known) and known.life(batch_id).at < limit
    ]
    return sum(delete_all(older(files[batch_id], age)) for batch_id in ended)


def _has_ended(batch_id: str, known: Round) -> bool:
    """Whether a sealed batch has ended; one that an older version gave to a run has, unless it is marked as open."""
    life = known.life(batch_id)
    return life.state in ENDS or (
        life.number == 0 and bool(life.run_id) and not objects.exists(lake.open_batch(batch_id))
    )


def _expire_marks() -> int:
    marks = older(objects.listing(lake.open_batch()), NEVER_SEALED)
    unsealed = [one for one in marks if not objects.exists(lake.claims(one.uri.rsplit("/", 1)[-1], "manifest.json"))]
    return delete_all(unsealed)
