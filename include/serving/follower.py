"""The versions that answer: they follow the aliases of MLflow's registry, and outlive the registry."""

import gc
import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from include import objects
from include.registry import canary, models
from include.registry.models import ModelVersion
from include.serving.engine import Engine, EngineError

logger = logging.getLogger(__name__)

KEPT_VERSIONS = 2  # on the disk: the one that answers and the one before, for a rollback
CURRENT = "current.json"


@dataclass(frozen=True)
class Partner:
    """A second version, and how much it has to do with requests.

    Attributes:
        engine: the version.
        role: a canary answers its share of them, a shadow is only asked what it would.
        share: from 0 to 1.
    """

    engine: Engine
    role: Literal["canary", "shadow"]
    share: float


@dataclass(frozen=True)
class _Wanted:
    """What the registry says: who answers, and beside whom."""

    main: ModelVersion
    partner: ModelVersion | None = None
    role: Literal["canary", "shadow"] = "canary"
    share: float = 0.0
    told: str = ""  # why the champion is not who answers


class Follower:
    """Keeps one model's champion loaded, and its canary or shadow.

    While a canary bakes, the champion's alias is on it already, and the version before answers all other requests.

    Args:
        model: the registered model's name.
        cache: folder on the local disk; what lies there lets the server start without registry and bucket.
        shadow: the share of requests that the challenger is asked too, from 0 to 1.
    """

    def __init__(self, model: str, cache: Path, shadow: float = 0.0) -> None:
        self.model = model
        self.engine: Engine | None = None
        self.partner: Partner | None = None
        self.trouble = ""  # why the registry's champion is not what answers; empty if it is
        self._shadow = shadow
        self._asked: _Wanted | None = None  # what was carried out last
        self._folder = cache / model
        self._refused: dict[str, str] = {}  # versions that could not be loaded, and why
        self._failed: dict[str, str] = {}  # canaries that this server saw fail, and why

    def look(self) -> bool:
        """Asks the registry and loads what it names; whether any version that answers changed.

        Never raises: whatever is wrong, the version before goes on answering, and ``trouble`` says why.
        """
        try:
            wanted = self._ask()
        except Exception as error:
            self._say(f"the registry does not answer: {_first_line(error)}")
            return self._from_disk() if self.engine is None else False
        if wanted is None:
            self._say(f"{self.model} has no champion yet")
            return False
        before = self.engine, self.partner
        main = self._loaded(wanted.main)
        if main is None:
            return self._from_disk() if self.engine is None else False
        # Loaded beside it before either answers, so that a canary begins with its share and not with all requests.
        partner = self._partner(wanted)
        if main is not self.engine:
            self._take(main)
        self.partner, self._asked = partner, wanted
        if wanted.told or not (wanted.partner and partner is None):
            self._say(wanted.told)
        first, changed = before[0] is None, before != (self.engine, self.partner)
        del before
        if changed:
            self._tidy()
            _let_go(first=first)
        return changed

    def fail(self, version: str, reason: str) -> None:
        """Stops asking a canary, here at once and elsewhere by its tag. Never raises: each look tries again."""
        self._failed[version] = reason
        if self.partner and self.partner.engine.version == version:
            self.partner = None
        logger.warning("%s: version %s failed as canary: %s", self.model, version, reason)
        try:
            found = models.by_version(self.model, version)
            if found is not None:
                canary.fail(found, reason)
        except Exception as error:
            logger.warning("%s: that cannot be told to the registry yet: %s", self.model, _first_line(error))

    def _ask(self) -> _Wanted | None:
        champion = models.by_alias(self.model, models.CHAMPION)
        if champion is None:
            return None
        baking = canary.of(champion)
        if baking is not None and baking.bakes(datetime.now(UTC)):
            if not baking.failed and champion.version in self._failed:
                self.fail(champion.version, self._failed[champion.version])
            failed = baking.failed or self._failed.get(champion.version, "")
            told = f"version {champion.version} failed as canary: {failed}" if failed else ""
            before = models.by_alias(self.model, models.PREVIOUS)
            if before and before.version not in (champion.version, *self._refused) and not _has_failed(before):
                if failed:
                    return _Wanted(before, told=told)
                return _Wanted(before, champion, "canary", baking.percent / 100)
            if self._asked and self._asked.main.version != champion.version:
                # A rollback moves the alias previous first: for a moment both are on the version that is to go.
                return _Wanted(self._asked.main, told=told or f"version {champion.version} is being replaced")
        else:
            self._failed.pop(champion.version, None)
        if self._shadow:
            challenger = models.by_alias(self.model, models.CHALLENGER)
            return _Wanted(champion, challenger, "shadow", self._shadow)
        return _Wanted(champion)

    def _partner(self, wanted: _Wanted) -> Partner | None:
        if wanted.partner is None or (wanted.role == "canary" and wanted.partner.version in self._failed):
            return None
        engine = self._loaded(wanted.partner)
        if engine is None:
            if wanted.role == "canary" and wanted.partner.version in self._refused:
                self.fail(wanted.partner.version, self._refused[wanted.partner.version])
            return None
        same = self.partner if self.partner and self.partner.engine is engine else None
        made = Partner(engine, wanted.role, wanted.share)
        return same if same == made else made

    def _loaded(self, version: ModelVersion) -> Engine | None:
        """A version, loaded once; None if it cannot be, and ``trouble`` says why."""
        for engine in (self.engine, self.partner.engine if self.partner else None):
            if engine is not None and engine.version == version.version:
                return engine
        if version.version in self._refused:
            self._say(self._refused[version.version])
            return None
        try:
            return Engine(self.model, version.version, self._fetch(version.version, version.uri), self.engine)
        except EngineError as error:
            self._refused[version.version] = str(error)
            self._forget(version.version)
            self._say(str(error))
        except Exception as error:  # the bucket: the next look tries again
            self._say(f"the files of version {version.version} cannot be had: {_first_line(error)}")
        return None

    def _take(self, engine: Engine) -> None:
        before = self.engine.version if self.engine else "none"
        self.engine = engine
        _write(self._folder / CURRENT, json.dumps({"version": engine.version}))
        logger.info("%s: version %s answers now, before it %s", self.model, engine.version, before)

    def _tidy(self) -> None:
        """Deletes files of versions that were left long ago."""
        used = {one.version for one in (self.engine, self.partner.engine if self.partner else None) if one}
        others = [path for path in self._folder.iterdir() if path.is_dir() and path.name not in used]
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
            objects.download(uri, Path(coming) / "model")
            with suppress(OSError):  # another process of this machine was quicker
                (Path(coming) / "model").rename(target)
        return target

    def _forget(self, version: str) -> None:
        shutil.rmtree(self._folder / version, ignore_errors=True)

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            logger.warning("%s: %s", self.model, trouble)
        self.trouble = trouble


def _let_go(*, first: bool) -> None:
    """Frees what a version leaves that was replaced: some of it is let go of by Python's collector alone.

    What is there when the first version answers is no longer looked at, or each look would take a quarter of a second,
    and nobody would be answered meanwhile.
    """
    gc.collect()
    if first:
        gc.freeze()


def _has_failed(version: ModelVersion) -> bool:
    """Whether it was a canary itself and failed: another was promoted before it was rolled back."""
    found = canary.of(version)
    return bool(found and found.failed)


def _write(path: Path, content: str) -> None:
    """Writes a file whole, or not at all."""
    coming = path.with_name(f".{path.name}.{os.getpid()}")
    coming.write_text(content)
    coming.rename(path)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
