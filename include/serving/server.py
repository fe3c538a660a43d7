"""The models that a server answers with, and one request from texts to answers."""

import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from include.serving import feedback
from include.serving.access import Refused
from include.serving.bake import Bake
from include.serving.batcher import Batcher, QueueFull
from include.serving.engine import Engine
from include.serving.follower import Follower, Partner
from include.serving.metrics import Metrics
from include.serving.prediction_log import PredictionLog, Role, Said, new_id
from include.serving.wire import FeedbackRequest, SampleRequest, SampleResponse
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
        shadow = config.shadow_percent / 100 if config.shadow else 0.0
        self.config = config
        self.metrics = Metrics()
        self.followers = {model: Follower(model, cache, shadow) for model in models}
        self.batcher = Batcher(config.batch_tokens, config.queue_tokens, self._formed)
        self.log = PredictionLog(config.log_texts, config.log_seconds)
        self._tasks: list[asyncio.Task[None]] = []
        self._comparing: set[asyncio.Task[None]] = set()
        self._bakes: dict[Partner, Bake] = {}

    async def start(self) -> None:
        """Begins to answer and to follow the registry."""
        self._tasks = [asyncio.create_task(self.batcher.run())]
        self._tasks += [asyncio.create_task(self._follow(follower)) for follower in self.followers.values()]

    async def stop(self) -> None:
        """Ends when all that waits is answered, or after some seconds, and what was said is logged."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.batcher.waiting_tokens and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for task in (*self._tasks, *self._comparing):
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
        self._check_number(texts)
        if caller_ids is not None and len(caller_ids) != len(texts):
            raise Refused(400, f"there are {len(texts)} texts and {len(caller_ids)} ids")
        follower, engine = self.follower(model), self.engine(model)
        partner = follower.partner
        bake = self._bakes.setdefault(partner, Bake(self.config)) if partner else None
        drawn = partner if partner and random.random() < partner.share else None
        said = None
        if drawn and bake and drawn.role == "canary":
            try:
                said = await self._answer(drawn.engine, texts, caller_ids, "canary")
            except Refused:
                raise
            except Exception as error:  # nobody is to suffer from a canary
                logger.warning("version %s did not answer: %s", drawn.engine.version, error)
                bake.failed()
                await self._judge(follower, drawn, bake)
                drawn = None
        if said is None:
            said = await self._answer(engine, texts, caller_ids, "champion")
        self.log.add(said)
        self._count(said)
        if partner and bake:
            bake.answered(said.latency_ms or 0.0, by_canary=said.role == "canary")
        if drawn and bake:
            other = engine if said.role == "canary" else drawn.engine
            task = asyncio.create_task(self._compare(follower, drawn, bake, said, other))
            self._comparing.add(task)
            task.add_done_callback(self._comparing.discard)
        return said

    async def compare(self, model: str | None, texts: list[str]) -> list[Said]:
        """What each version that is loaded says, first the one that answers; none of it is logged. Raises Refused."""
        self._check_number(texts)
        partner, engine = self.follower(model).partner, self.engine(model)
        said = [await self._answer(engine, texts, None, "champion")]
        return [*said, await self._answer(partner.engine, texts, None, partner.role)] if partner else said

    def _check_number(self, texts: list[str]) -> None:
        if len(texts) > self.config.most_texts:
            raise Refused(413, f"{len(texts)} texts are more than {self.config.most_texts}: send fewer at a time")

    async def _answer(
        self, engine: Engine, texts: list[str], caller_ids: Sequence[str | None] | None, role: Role
    ) -> Said:
        began, at = time.monotonic(), datetime.now(UTC)
        soon = engine.tokenizes_soon(texts)
        tokens = engine.tokenize(texts) if soon else await asyncio.to_thread(engine.tokenize, texts)
        try:
            probabilities = await self.batcher.answer(engine, tokens)
        except QueueFull as full:
            raise Refused(429, str(full), {"Retry-After": str(full.seconds)}) from None
        return Said(
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
            role,
        )

    async def _compare(self, follower: Follower, partner: Partner, bake: Bake, said: Said, other: Engine) -> None:
        """Asks the version that did not answer, where there is time, and logs what it says as a shadow's word."""
        if self.batcher.waiting_tokens > self.config.queue_tokens / 2:
            return
        try:
            shadow = await self._answer(other, said.texts, said.caller_ids, "shadow")
        except Exception as error:
            logger.warning("version %s could not be compared: %s", other.version, error)
            return
        self.log.add(replace(shadow, ids=said.ids))  # by which both are found
        different = bake.compared(said.predicted, shadow.predicted)
        names = (follower.model, partner.role, partner.engine.version)
        self.metrics.compared.labels(*names).inc(len(said.texts))
        self.metrics.different.labels(*names).inc(different)
        await self._judge(follower, partner, bake)

    async def _judge(self, follower: Follower, partner: Partner, bake: Bake) -> None:
        if partner.role == "canary" and follower.partner is partner and (reason := bake.verdict()):
            follower.partner = None  # at once; the registry may take its time
            await asyncio.to_thread(follower.fail, partner.engine.version, reason)

    def keep_feedback(self, given: FeedbackRequest) -> None:
        """Keeps what somebody says of an answer. Raises Refused."""
        follower = self.follower(given.model)
        if follower.engine is not None and given.label not in follower.engine.labels:
            logger.info("feedback with a label that version %s does not know", follower.engine.version)
        try:
            feedback.keep(follower.model, given.model_dump(exclude={"model"}), datetime.now(UTC))
        except feedback.NoSuchSample as error:
            raise Refused(404, str(error)) from None

    def draw(self, wanted: SampleRequest) -> SampleResponse:
        """Texts to be labelled, chosen at random from the log. Raises Refused."""
        model = self.follower(wanted.model).model
        try:
            name, texts = feedback.sample(model, wanted.size, wanted.days, datetime.now(UTC))
        except feedback.NothingToLabel as error:
            raise Refused(404, str(error)) from None
        return SampleResponse(sample=name, texts=texts)

    def readiness(self) -> dict[str, dict[str, str | None]]:
        """Of each model: the version that answers, the one beside it, and why it is not the registry's champion."""
        found: dict[str, dict[str, str | None]] = {}
        for name, follower in self.followers.items():
            beside = follower.partner
            found[name] = {
                "version": follower.engine.version if follower.engine else None,
                **({beside.role: beside.engine.version} if beside else {}),
                "trouble": follower.trouble,
            }
        return found

    async def _follow(self, follower: Follower) -> None:
        while True:
            if await asyncio.to_thread(follower.look):
                self.metrics.version.clear()
                for name, other in self.followers.items():
                    if other.engine:
                        self.metrics.version.labels(name, other.engine.version, "champion").set(1)
                    if other.partner:
                        self.metrics.version.labels(name, other.partner.engine.version, other.partner.role).set(1)
                current = {one.partner for one in self.followers.values()}
                self._bakes = {partner: bake for partner, bake in self._bakes.items() if partner in current}
            await asyncio.sleep(self.config.look_seconds)

    def _formed(self, texts: int, tokens: int) -> None:
        self.metrics.batch_texts.observe(texts)
        self.metrics.tokens.inc(tokens)

    def _count(self, said: Said) -> None:
        for label, certainty in zip(said.predicted, said.certainty, strict=True):
            self.metrics.labels.labels(said.model, label).inc()
            self.metrics.confidence.labels(said.model).observe(certainty)
