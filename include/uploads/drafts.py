"""Drafts: files that somebody looks at before they are uploaded. Nothing claims them.

``drafts/<draft_id>/`` has ``draft.json``, what it is and who brought it; the file, unless the draft names one that lies
elsewhere; ``preview.json`` and ``rejected.csv``, what the pipeline's intake would make of it; and, once somebody has
asked for the training, ``handed_over.json`` and then ``uploaded.json``.

A draft is handed over once, however often that is asked for: ``handed_over.json`` is created with If-None-Match, and
only who has created it copies the file to ``incoming/``. Cut off between the two, the next who asks after ``PATIENCE``
copies it again: under the same key the same file is the same upload, which is used once.
"""

import posixpath
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from include import lake, objects
from include.datasets.names import has_unfinished_name, is_debris
from include.uploads import multipart

PATIENCE = timedelta(minutes=1)
LONGEST_NAME = 150  # characters
FOLDER = "console"  # of incoming/
LABELLED = "feedback/console"  # whose rows neither judge nor choose the best epoch
ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")


Document = TypeVar("Document", bound=BaseModel)


class DraftRefused(ValueError):
    """A file cannot become a draft; the message says why and what to do."""


class Draft(BaseModel):
    """What somebody wants to be looked at: a file that was brought here, or one or several that lie in S3 already."""

    model_config = ConfigDict(frozen=True)

    draft_id: str
    kind: Literal["file", "address"]
    name: str  # the file's, or the address
    size: int = 0  # bytes
    by: str
    at: datetime
    folder: str = FOLDER  # of incoming/, that it is uploaded to
    upload_id: str = ""  # S3's, of a file that a browser sends in parts

    @property
    def uri(self) -> str:
        """The address of the draft's own file, or the address that was named."""
        return lake.draft(self.draft_id, f"file/{self.name}") if self.kind == "file" else self.name

    @property
    def key(self) -> str:
        """The key below ``incoming/`` that *Train* copies the file to."""
        return f"incoming/{self.folder}/{self.draft_id}/{self.name}"


class HandedOver(BaseModel):
    """That somebody has asked for the training, and where the file went."""

    model_config = ConfigDict(frozen=True)

    by: str
    at: datetime
    token: str


class Share(BaseModel):
    """Of one label, the rows that the champion learnt from, those that this file adds, and both together."""

    label: str
    before: int
    added: int
    after: int


class Preview(BaseModel):
    """What the pipeline's intake makes of a draft."""

    outcome: Literal["trains", "waits", "waits_for_approval", "nothing_to_train", "unreadable"]
    reason: str = ""
    rows_in: int = 0
    used: int = 0
    rejected: int = 0
    waiting: int = 0
    by_rule: dict[str, int] = {}
    examples: list[dict[str, Any]] = []  # of rejected rows: file, row, text, label, rule, reason
    warnings: list[str] = []
    new: int = 0  # used rows whose text the champion's data does not have
    corrected: int = 0  # used rows whose text it has with another label
    known: int = 0  # rejected rows that are there already
    contradicting: int = 0  # rejected rows that contradict others
    new_labels: list[str] = []  # that are admitted with this file
    balance: list[Share] = []
    beside: list[str] = []  # other uploads that wait, and are taken by the same run
    parent_dataset_id: str | None = None
    at: datetime


def file_name(given: str) -> str:
    """A browser's name for a file as a draft has it. Raises DraftRefused."""
    name = posixpath.basename(given.replace("\\", "/")).strip()
    name = lake.plain("".join(character for character in name if character.isprintable()))
    if not name or name in (".", ".."):
        raise DraftRefused("the file has no name")
    if len(name) > LONGEST_NAME:
        raise DraftRefused(f"the file's name has {len(name)} characters, and may have {LONGEST_NAME}: shorten it")
    if is_debris(name) or has_unfinished_name(name):
        raise DraftRefused(f"{name!r} is called like a file that is not finished, or no data at all: rename it")
    return name


def new_id() -> str:
    """An id that nobody guesses, in order of time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def keep_file(path: Path, name: str, by: str, folder: str = FOLDER) -> Draft:
    """Makes a draft of a local file; ``folder`` is that of incoming/ it will be uploaded to. Raises DraftRefused."""
    size = path.stat().st_size
    if not size:
        raise DraftRefused(f"{name!r} is empty")
    draft = Draft(
        draft_id=new_id(), kind="file", name=file_name(name), size=size, by=by, at=datetime.now(UTC), folder=folder
    )
    objects.upload_file(path, draft.uri)
    return _keep(draft)


def expect_file(name: str, size: int, by: str, *, one_request: int) -> Draft:
    """Makes a draft of a file that is still to come, to where its ``uri`` says. Raises DraftRefused.

    One of more than ``one_request`` bytes comes in parts, under its ``upload_id``.
    """
    if size < 1:
        raise DraftRefused(f"{name!r} is empty")
    draft = Draft(draft_id=new_id(), kind="file", name=file_name(name), size=size, by=by, at=datetime.now(UTC))
    if size > one_request:
        draft = draft.model_copy(update={"upload_id": multipart.begin(draft.uri)})
    return _keep(draft)


def has_come(draft: Draft) -> bool:
    """Whether the file of a draft lies there whole; makes it of its parts, if it came in any and they are all there."""
    if draft.kind != "file":
        return False
    if draft.upload_id and not objects.exists(draft.uri):
        with suppress(FileNotFoundError):  # another request has just done it, or it was given up
            return multipart.finish(draft.uri, draft.upload_id, draft.size)
    if not objects.exists(draft.uri):
        return False
    return int(objects.filesystem(draft.uri).info(draft.uri)["size"]) == draft.size


def give_up(draft: Draft) -> None:
    """Deletes the parts of a file that have come, if it is not whole yet: it will not come."""
    if draft.upload_id:
        multipart.give_up(draft.uri, draft.upload_id)


def keep_address(uri: str, by: str) -> Draft:
    """Makes a draft of files that lie in S3: one, a folder, or a pattern. Raises DraftRefused."""
    uri = uri.strip()
    if not re.fullmatch(r"s3://[^/\s]+/\S.*", uri):
        raise DraftRefused(f"{uri!r} is no address such as s3://bucket/folder/file.csv")
    if f"{lake.root()}/incoming/".startswith(uri) or uri.startswith(lake.incoming()):
        raise DraftRefused("what lies in incoming/ is taken in by itself; give another address")
    return _keep(Draft(draft_id=new_id(), kind="address", name=uri, by=by, at=datetime.now(UTC)))


def _keep(draft: Draft) -> Draft:
    objects.write_json(lake.draft(draft.draft_id, "draft.json"), draft.model_dump(mode="json"))
    return draft


def read(draft_id: str) -> Draft | None:
    """A draft; None if there is none, or no longer."""
    return _read(draft_id, "draft.json", Draft)


def preview_of(draft_id: str) -> Preview | None:
    """What was seen in a draft; None as long as it was not looked at."""
    return _read(draft_id, "preview.json", Preview)


def write_preview(draft_id: str, preview: Preview) -> str:
    """Keeps what was seen in a draft; returns its URI."""
    return objects.write_json(lake.draft(draft_id, "preview.json"), preview.model_dump(mode="json"))


def handed_over(draft_id: str) -> HandedOver | None:
    """Who has asked for the training; None if nobody has."""
    return _read(draft_id, "handed_over.json", HandedOver)


def hand_over(draft: Draft, by: str) -> bool:
    """Uploads a draft's file, once; False if somebody had asked for it before."""
    mine = HandedOver(by=by, at=datetime.now(UTC), token=secrets.token_hex(8))
    marked = lake.draft(draft.draft_id, "handed_over.json")
    first = objects.create_bytes(marked, mine.model_dump_json().encode())
    before = mine if first else handed_over(draft.draft_id)
    cut_off = before is not None and datetime.now(UTC) - before.at > PATIENCE
    done = lake.draft(draft.draft_id, "uploaded.json")
    if draft.kind == "file" and (first or (cut_off and not objects.exists(done))):
        objects.write_json(done, {"key": draft.key, "etag": _copy(draft.uri, f"{lake.root()}/{draft.key}")})
    return first


def batch_of(draft: Draft) -> str | None:
    """The batch that has claimed a draft's upload; None if none has yet."""
    done = lake.draft(draft.draft_id, "uploaded.json")
    if not objects.exists(done):
        return None
    uploaded = objects.read_json(done)
    index = lake.claim_index(uploaded["key"], uploaded["etag"])
    return str(objects.read_json(index)["batch_id"]) if objects.exists(index) else None


def _copy(source: str, target: str) -> str:
    """Copies one object; returns what the copy's content is told by, which another may have deleted by then."""
    if target.startswith("s3://"):
        return multipart.copy(source, target)
    objects.filesystem(target).cp_file(source, target)
    return objects.etag(target) or ""


def _read(draft_id: str, name: str, model: type[Document]) -> Document | None:
    if not ID.fullmatch(draft_id):
        return None
    uri = lake.draft(draft_id, name)
    try:
        return model.model_validate(objects.read_json(uri)) if objects.exists(uri) else None
    except ValidationError:  # of another release
        return None
