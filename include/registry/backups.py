"""Copies of champions' files in ``backups/<model>/<version>/``, with the hash of each file.

A backup is whole once its ``manifest.json`` lies there, which is written last, after what was copied was read again.
"""

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from include import lake, objects

logger = logging.getLogger(__name__)

MANIFEST, CARD = "manifest.json", "README.md"
CHUNK = 8 << 20  # bytes that are hashed at a time
AT_ONCE = 4


class BackupError(RuntimeError):
    """There is no backup, or it is not what was copied."""


class Backup(BaseModel):
    """What a backup holds: the SHA-256 of each file by its name, and what it takes to register the version again."""

    model_config = ConfigDict(frozen=True)

    model_name: str
    version: str
    files: dict[str, str]
    tags: dict[str, str]
    mlflow_run_id: str = ""
    made_at: datetime

    @property
    def uri(self) -> str:
        """Where the copies of the version's files lie."""
        return lake.backup(self.model_name, self.version, "files/")


def keep(model_name: str, version: str, uri: str, *, tags: dict[str, str], mlflow_run_id: str = "") -> Backup:
    """Copies a version's files from their folder, and compares the copies with them by hash; returns the backup.

    A version that has a backup whose files are there and unchanged is not copied again. Raises BackupError if there is
    nothing to copy, a copy is not what was copied, or a version's files have changed as well as their backup.
    """
    there = find(model_name, version)
    if there is not None and not damaged(there, there.uri):
        return there
    if there is not None and (wrong := damaged(there, uri)):
        raise BackupError(
            f"{model_name} version {version}: neither its backup nor its files at {uri} are what they were on "
            f"{there.made_at:%F}: {', '.join(wrong)}. Promote another version, or bring the files back from elsewhere"
        )
    files = hashes(uri)
    if not files:
        raise BackupError(f"{model_name} version {version} has no files at {uri}: there is nothing to back up")
    backup = Backup(
        model_name=model_name, version=version, files=files, tags=tags, mlflow_run_id=mlflow_run_id,
        made_at=datetime.now(UTC),
    )  # fmt: skip
    _copy(uri, backup.uri, files)
    if wrong := damaged(backup, backup.uri):
        raise BackupError(
            f"the backup of {model_name} version {version} is not what lies at {uri}: {', '.join(wrong)}. Nothing "
            "refers to it yet; trying again copies it again"
        )
    objects.write_json(lake.backup(model_name, version, MANIFEST), backup.model_dump(mode="json"))
    return backup


def find(model_name: str, version: str) -> Backup | None:
    """A version's backup; None if there is none."""
    uri = lake.backup(model_name, version, MANIFEST)
    return Backup.model_validate(objects.read_json(uri)) if objects.exists(uri) else None


def require(model_name: str, version: str) -> Backup:
    """A version's backup, whose files were compared with their hashes. Raises BackupError with those there are."""
    found = find(model_name, version)
    if found is None:
        there = ", ".join(f"version {one.version} ({one.made_at:%F %R})" for one in known(model_name)) or "none"
        raise BackupError(f"{model_name} version {version} has no backup. There are: {there}")
    if wrong := damaged(found, found.uri):
        raise BackupError(f"the backup of {model_name} version {version} is damaged: {', '.join(wrong)}")
    return found


def known(model_name: str) -> list[Backup]:
    """All backups of a model, the newest first."""
    uris = [uri for uri in objects.find(lake.backup(model_name)) if uri.endswith(f"/{MANIFEST}")]
    found = [Backup.model_validate(objects.read_json(uri)) for uri in uris]
    return sorted(found, key=lambda one: one.made_at, reverse=True)


def damaged(backup: Backup, uri: str) -> list[str]:
    """The files that a folder lacks, or has otherwise than the backup's hashes say; empty if it has all of them.

    A model card may have been written again.
    """
    return [f"{name} {what}" for name, what in _wrong(backup, uri).items()]


def _wrong(backup: Backup, uri: str) -> dict[str, str]:
    there = hashes(uri)
    found = {name: "has another content" if name in there else "is gone" for name in backup.files}
    return {
        name: what
        for name, what in found.items()
        if there.get(name) != backup.files[name] and (name not in there or name != CARD)
    }


def bring_back(backup: Backup, uri: str) -> list[str]:
    """Copies the files of a backup to a folder that are gone there or have another content; returns what was wrong.

    Raises BackupError if the backup itself is damaged, and changes nothing then.
    """
    wrong = _wrong(backup, uri)
    told = [f"{name} {what}" for name, what in wrong.items()]
    if wrong:
        _copy(require(backup.model_name, backup.version).uri, uri, wrong)
        logger.warning("%s version %s: brought back from its backup: %s", backup.model_name, backup.version, told)
    return told


def thin_out(model_name: str, kept: int, champion: str) -> list[str]:
    """Deletes all but the newest backups of a model; returns the versions whose went.

    The champion's stays, however old: after a rollback it may be the oldest.
    """
    others = [one for one in known(model_name) if one.version != champion]
    old = others[kept - 1 :]
    for one in old:
        folder = lake.backup(model_name, one.version)
        objects.delete(f"{folder}{MANIFEST}")  # first: without it nobody takes the rest for a backup
        objects.filesystem(folder).rm(folder, recursive=True)
    return [one.version for one in old]


def hashes(uri: str) -> dict[str, str]:
    """The SHA-256 of each file in a folder, by its path below it."""
    folder = f"{uri.rstrip('/')}/"
    found = objects.find(folder)
    with ThreadPoolExecutor(AT_ONCE) as readers:
        return dict(zip((one.removeprefix(folder) for one in found), readers.map(_hash, found), strict=True))


def _hash(uri: str) -> str:
    digest = hashlib.sha256()
    with objects.filesystem(uri).open(uri, "rb", block_size=CHUNK) as content:
        while part := content.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _copy(source: str, target: str, names: Iterable[str]) -> None:
    files = objects.filesystem(source)
    for name in names:
        files.cp_file(f"{source.rstrip('/')}/{name}", f"{target.rstrip('/')}/{name}")
