"""Checkpoints in the job's folder: uploaded whole or not at all, found again by the next attempt.

Each lies in a folder of its own, ``checkpoints/<step>-<start>-<attempt>/``, and counts only once ``complete.json`` is
in it, which is written last and lists every file and its size. Kept are the newest, to resume from, and the best, to
become the model.
"""

import logging
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from include import objects

logger = logging.getLogger(__name__)

MARKER = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint in the job's folder."""

    uri: str
    step: int
    best_step: int  # the step of the best epoch so far, 0 before the first
    files: dict[str, int]  # name: bytes


class Checkpoints:
    """The checkpoints of one job, as one attempt at it sees them.

    Args:
        uri: The folder of all attempts' checkpoints.
        work: A local folder, in which the trainer saves ``checkpoint-<step>``.
        start: Names what training started from; checkpoints of another start are not resumed from.
    """

    def __init__(self, uri: str, work: Path, start: str) -> None:
        self.uri = uri.rstrip("/")
        self.work = work
        self._start = start
        # No two attempts share a folder: a checkpoint is never made of two attempts' files.
        self._attempt = uuid.uuid4().hex[:8]

    def local(self, step: int) -> Path:
        """Where a step's checkpoint lies, or would lie, on the local disk."""
        return self.work / f"checkpoint-{step}"

    def upload(self, step: int, best_step: int) -> None:
        """Uploads a local checkpoint, and the best one if it was not worth it when it was saved.

        What they replace is deleted.

        Args:
            step: Of the checkpoint.
            best_step: Of the best epoch so far.
        """
        if best_step and best_step != step and all(one.step != best_step for one in self.complete()):
            self._upload(best_step, best_step)
        self._prune(self._upload(step, best_step), step, best_step)

    def prune_local(self, step: int, best_step: int) -> None:
        """Deletes all local checkpoints but these two."""
        for local in self.work.glob("checkpoint-*"):
            if local not in (self.local(step), self.local(best_step)):
                shutil.rmtree(local)

    def _upload(self, step: int, best_step: int) -> str:
        folder = self.local(step)
        target = f"{self.uri}/{step:09d}-{self._start}-{self._attempt}"
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        objects.upload(folder, target)
        objects.write_json(f"{target}/{MARKER}", {"step": step, "best_step": best_step, "files": files})
        return target

    def _prune(self, newest: str, step: int, best_step: int) -> None:
        keep = {newest, *(checkpoint.uri for checkpoint in self.complete() if checkpoint.step == best_step)}
        for folder in {uri.rsplit("/", 1)[0] for uri in objects.find(self.uri)} - keep:
            if int(folder.rsplit("/", 1)[1].split("-")[0]) <= step:
                _delete(folder)
        self.prune_local(step, best_step)

    def complete(self) -> list[Checkpoint]:
        """All whole checkpoints, the newest first."""
        uris = set(objects.find(self.uri))
        folders = [uri.rsplit("/", 1)[0] for uri in uris if uri.endswith(f"/{MARKER}") and f"-{self._start}-" in uri]
        found = [Checkpoint(uri=folder, **objects.read_json(f"{folder}/{MARKER}")) for folder in folders]
        whole = [one for one in found if all(f"{one.uri}/{name}" in uris for name in one.files)]
        return sorted(whole, key=lambda checkpoint: checkpoint.step, reverse=True)

    def restore(self) -> int:
        """Downloads the newest checkpoint that is whole, and the best one with it.

        Returns:
            Its step, 0 if there is none.
        """
        complete = self.complete()
        for checkpoint in complete:
            best = [one for one in complete if one.step == checkpoint.best_step]
            if checkpoint.best_step and not best:
                continue
            try:
                for one in (checkpoint, *best[:1]):
                    self._download(one)
            except OSError as error:
                logger.warning("checkpoint %s cannot be used: %s", checkpoint.uri, error)
                continue
            return checkpoint.step
        return 0

    def _download(self, checkpoint: Checkpoint) -> None:
        folder = objects.download(checkpoint.uri, self.local(checkpoint.step))
        for name, size in checkpoint.files.items():
            found = (folder / name).stat().st_size
            if found != size:
                raise OSError(f"{checkpoint.uri}/{name} has {found} bytes, not {size}")

    def clear(self) -> None:
        """Deletes all checkpoints of the job, once its result is written."""
        for folder in {uri.rsplit("/", 1)[0] for uri in objects.find(self.uri)}:
            _delete(folder)


def _delete(folder: str) -> None:
    # The marker goes first: what is half deleted must not look complete.
    files = objects.filesystem(folder)
    uris = objects.find(folder)
    for uri in sorted(uris, key=lambda uri: not uri.endswith(f"/{MARKER}")):
        files.rm_file(uri)
