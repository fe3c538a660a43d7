"""The models that a server answers with, and one request from texts to answers."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from include import lake
from include.serving.access import Refused
from include.serving.batcher import Batcher, QueueFull
from include.serving.engine import Engine
from include.serving.follower import Follower
from include.serving.metrics import Metrics
from include.serving.prediction_log import PredictionLog, Said, new_id
from include.serving.wire import FeedbackRequest
from include.settings.serving import ServingSettings

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0


class ModelServer:
    """Everything that lives as long as the process.

    Args:
        config: of the server.
        models: names of the registered models to serve; the first answers where a request names none.
    """

    def __init__(self, config: ServingSettings, models: Sequence[str]) -> None:
        cache = Path(config.cache) if config.cache else Path(tempfile.gettempdir()) / "bert-serving"
        self.config = config
        self.metrics = Metrics()
        self.followers = {model: Follower(model, cache) for model in models}
        self.batcher = Batcher(config.batch_tokens, config.queue_tokens, self._formed)
        self.log = PredictionLog(config.log_texts, config.log_seconds)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to answer and to follow the registry."""
        self._tasks = [asyncio.create_task(self.batcher.run())]
        self._tasks += [asyncio.create_task(self._follow(follower)) for follower in self.followers.values()]

    async def stop(self) -> None:
        """Ends when all that waits is answered, or after some seconds, and what was said is logged."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.batcher.waiting_tokens and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self.log.close)

    def engine(self, model: str | None) -> Engine:
        """What answers for a model. Raises Refused."""
        follower = self.follower(model)
        if follower.engine is None:
            raise Refused(503, f"no version of {follower.model} answers: {follower.trouble or 'it is being loaded'}")
        return follower.engine

    def follower(self, model: str | None) -> Follower:
        """Of a model, or of the first. Raises Refused."""
        name = model or next(iter(self.followers))
        if name not in self.followers:
            raise Refused(404, f"there is no model {name!r} here: {', '.join(self.followers)}")
        return self.followers[name]

    async def say(self, model: str | None, texts: list[str], caller_ids: Sequence[str | None] | None = None) -> Said:
        """Answers texts, in one version's name, and logs it. Raises Refused."""
        began, at = time.monotonic(), datetime.now(UTC)
        if len(texts) > self.config.most_texts:
            raise Refused(413, f"{len(texts)} texts are more than {self.config.most_texts}: send fewer at a time")
        if caller_ids is not None and len(caller_ids) != len(texts):
            raise Refused(400, f"there are {len(texts)} texts and {len(caller_ids)} ids")
        engine = self.engine(model)
        tokens = await asyncio.to_thread(engine.tokenize, texts)
        try:
            probabilities = await self.batcher.answer(engine, tokens)
        except QueueFull as full:
            raise Refused(429, str(full), {"Retry-After": str(full.seconds)}) from None
        said = Said(
            engine.model,
            engine.version,
            at,
            [new_id(at) for _ in texts],
            texts,
            tokens.cut,
            engine.labels,
            probabilities,
            (time.monotonic() - began) * 1000,
            list(caller_ids or [None] * len(texts)),
        )
        self.log.add(said)
        self._count(said)
        return said

    def keep_feedback(self, given: FeedbackRequest) -> None:
        """Writes a correction beside the others of its day. Raises Refused."""
        follower = self.follower(given.model)
        if follower.engine is not None and given.label not in follower.engine.labels:
            logger.info("feedback with a label that version %s does not know", follower.engine.version)
        now = datetime.now(UTC)
        uri = lake.feedback(
            follower.model, f"date={now:%Y-%m-%d}/{given.prediction_id}-{int(now.timestamp() * 1e6)}.json"
        )
        lake.write_json(uri, given.model_dump(exclude={"model"}) | {"at": now.isoformat()})

    def readiness(self) -> dict[str, dict[str, str | None]]:
        """Of each model: the version that answers, and why it is not the registry's champion."""
        return {
            name: {"version": follower.engine.version if follower.engine else None, "trouble": follower.trouble}
            for name, follower in self.followers.items()
        }

    async def _follow(self, follower: Follower) -> None:
        while True:
            if await asyncio.to_thread(follower.look) and follower.engine:
                self.metrics.version.clear()
                for name, other in self.followers.items():
                    if other.engine:
                        self.metrics.version.labels(name, other.engine.version).set(1)
            await asyncio.sleep(self.config.look_seconds)

    def _formed(self, texts: int, tokens: int) -> None:
        self.metrics.batch_texts.observe(texts)
        self.metrics.tokens.inc(tokens)

    def _count(self, said: Said) -> None:
        best = said.probabilities.argmax(-1)
        for row, index in enumerate(best):
            self.metrics.labels.labels(said.model, said.labels[index]).inc()
            self.metrics.confidence.labels(said.model).observe(float(said.probabilities[row, index]))
