"""Requests that wait together are answered together, in batches of so many tokens."""
# ruff: noqa: TID253 - numbers are what this module is about

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from include.serving.engine import Engine, Tokens

Answer = NDArray[np.float32]
PATIENCE = 0.5  # of the time that the last batch took
MOST_PAUSE = 63  # batches that do not wait after one that waited in vain again and again


class QueueFull(RuntimeError):
    """More waits than can be answered soon.

    Args:
        seconds: after which a new try is likely to find room.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"more texts wait than can be answered soon; try again in {seconds} s")
        self.seconds = seconds


@dataclass
class _Waiting:
    engine: Engine
    tokens: Tokens
    size: int
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Answers requests one batch at a time, the oldest first.

    Callers who were answered together ask again together, and what begins with the first of them would leave out the
    others. So it waits for as many requests as there were, but not for long, and for a lone caller not at all. Where
    others ask than those who were answered, it was in vain, and some batches do not wait then, twice as many each time.

    All models of a process share it, since they share its processor. A batch has requests of one version only, and each
    request stays with the version that it came to: while a new one takes over, both may answer for a moment.

    Args:
        batch_tokens: of a batch, about; a larger request is a batch of its own.
        most_waiting_tokens: beyond which requests are refused rather than kept waiting.
        formed: called with the texts and tokens of each batch.
    """

    def __init__(
        self,
        batch_tokens: int,
        most_waiting_tokens: int,
        formed: Callable[[int, int], None] = lambda texts, tokens: None,
    ) -> None:
        self.batch_tokens, self.most_waiting_tokens = batch_tokens, most_waiting_tokens
        self.waiting_tokens = 0
        self._formed = formed
        self._queue: deque[_Waiting] = deque()
        self._came, self._enough = asyncio.Event(), asyncio.Event()
        self._expected = 0  # requests
        self._queued_tokens = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._tokens_per_second = 1000.0  # until the first batch has shown it

    async def answer(self, engine: Engine, tokens: Tokens) -> Answer:
        """(texts, labels) float32, once their turn has come. Raises QueueFull."""
        size = len(tokens)
        if self.waiting_tokens and self.waiting_tokens + size > self.most_waiting_tokens:
            raise QueueFull(max(1, round(self.waiting_tokens / self._tokens_per_second)))
        waiting = _Waiting(engine, tokens, size)
        self.waiting_tokens += size
        self._queue.append(waiting)
        self._queued_tokens += size
        self._came.set()
        if len(self._queue) >= self._expected or self._queued_tokens >= self.batch_tokens:
            self._enough.set()
        try:
            return await waiting.answer
        finally:
            self.waiting_tokens -= size

    async def run(self) -> None:
        """Answers until it is cancelled."""
        loop = asyncio.get_running_loop()
        took = 0.0  # seconds, by the last batch
        pause = left = 0  # batches that do not wait, and how many of them are left
        while True:
            await self._came.wait()
            if left:
                left -= 1
            elif not self._enough.is_set():
                try:
                    async with asyncio.timeout(PATIENCE * took):
                        await self._enough.wait()
                    pause = 0
                except TimeoutError:
                    left = pause = min(2 * pause + 1, MOST_PAUSE)
            batch = self._next()
            if not batch:
                self._came.clear()
                self._expected = 0
                continue
            rows = [row for one in batch for row in one.tokens.rows]
            size, began = sum(one.size for one in batch), loop.time()
            try:
                found = await loop.run_in_executor(self._thread, batch[0].engine.probabilities, rows)
            except Exception as error:
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            took = loop.time() - began
            self._tokens_per_second = size / max(took, 1e-6)
            self._formed(len(rows), size)
            self._expected = len(self._queue) + len(batch)
            if self._queued_tokens < self.batch_tokens:
                self._enough.clear()
            start = 0
            for one in batch:
                end = start + len(one.tokens.rows)
                if not one.answer.done():  # whoever asked may have gone
                    one.answer.set_result(found[start:end])
                start = end

    def _next(self) -> list[_Waiting]:
        """The oldest requests that make a batch; those that nobody waits for any more are left out."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue:
            first = self._queue[0]
            if first.answer.done():
                self._take()
                continue
            if batch and (first.engine is not batch[0].engine or size + first.size > self.batch_tokens):
                break
            batch.append(self._take())
            size += first.size
        return batch

    def _take(self) -> _Waiting:
        first = self._queue.popleft()
        self._queued_tokens -= first.size
        return first
