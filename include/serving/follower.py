"""The version that answers: it follows the alias ``champion`` of MLflow's registry, and outlives the registry."""

import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from include import lake
from include.registry import models
from include.serving.engine import Engine, EngineError

logger = logging.getLogger(__name__)

KEPT_VERSIONS = 2  # on the disk: the one that answers and the one before, for a rollback
CURRENT = "current.json"


class Follower:
    """Keeps one model's champion loaded.

    Args:
        model: the registered model's name.
        cache: folder on the local disk; what lies there lets the server start without registry and bucket.
    """

    def __init__(self, model: str, cache: Path) -> None:
        self.model = model
        self.engine: Engine | None = None
        self.trouble = ""  # why the registry's champion is not what answers; empty if it is
        self._folder = cache / model
        self._refused: dict[str, str] = {}  # versions that could not be loaded, and why

    def look(self) -> bool:
        """Asks for the champion and loads it if it is another; whether the version that answers changed.

        Never raises: whatever is wrong, the version before goes on answering, and ``trouble`` says why.
        """
        try:
            champion = models.by_alias(self.model, models.CHAMPION)
        except Exception as error:
            self._say(f"the registry does not answer: {_first_line(error)}")
            return self._from_disk() if self.engine is None else False
        if champion is None:
            self._say(f"{self.model} has no champion yet")
            return False
        if self.engine is not None and self.engine.version == champion.version:
            self.trouble = ""
            return False
        if champion.version in self._refused:
            self._say(self._refused[champion.version])
            return False
        try:
            engine = Engine(self.model, champion.version, self._fetch(champion.version, champion.uri))
        except EngineError as error:
            self._refused[champion.version] = str(error)
            self._forget(champion.version)
            self._say(str(error))
            return self._from_disk() if self.engine is None else False
        except Exception as error:  # the bucket: the next look tries again
            self._say(f"the files of version {champion.version} cannot be had: {_first_line(error)}")
            return self._from_disk() if self.engine is None else False
        self._take(engine)
        self.trouble = ""
        return True

    def _take(self, engine: Engine) -> None:
        before = self.engine.version if self.engine else "none"
        self.engine = engine
        _write(self._folder / CURRENT, json.dumps({"version": engine.version}))
        logger.info("%s: version %s answers now, before it %s", self.model, engine.version, before)
        others = [path for path in self._folder.iterdir() if path.is_dir() and path.name != engine.version]
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_VERSIONS - 1 :]:
            shutil.rmtree(path, ignore_errors=True)

    def _from_disk(self) -> bool:
        """Loads what this server answered with last; whether there was something."""
        with suppress(FileNotFoundError, ValueError, KeyError, EngineError):
            version = json.loads((self._folder / CURRENT).read_text())["version"]
            if (self._folder / version).is_dir():
                self.engine = Engine(self.model, version, self._folder / version)
                logger.warning("%s: version %s answers, from this server's disk", self.model, version)
                return True
        return False

    def _fetch(self, version: str, uri: str) -> Path:
        """A version's files on this disk, whole."""
        target = self._folder / version
        if target.is_dir():
            os.utime(target)
            return target
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".coming-") as coming:
            lake.download(uri, Path(coming) / "model")
            with suppress(OSError):  # another process of this machine was quicker
                (Path(coming) / "model").rename(target)
        return target

    def _forget(self, version: str) -> None:
        shutil.rmtree(self._folder / version, ignore_errors=True)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.warning("%s: %s", self.model, trouble)
        self.trouble = trouble


def _write(path: Path, content: str) -> None:
    """Writes a file whole, or not at all."""
    coming = path.with_name(f".{path.name}.{os.getpid()}")
    coming.write_text(content)
    coming.rename(path)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
