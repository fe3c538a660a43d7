"""Callers of a model server, as many as wanted, that cost the machine which they share with it next to nothing."""

import asyncio
import json
import random
import time
from typing import cast

import httptools


class Load:
    """Callers that each send the next request when they have the answer to the last.

    They share the machine with the side that is measured, so they are as lean as Python can be: requests are made
    before the time is taken, and one thread with a parser in C sends them all.
    """

    def __init__(self, port: int, texts: list[str], per_request: int) -> None:
        self._port, self._texts, self._per_request = port, texts, per_request

    def run(self, callers: int, requests: int) -> tuple[float, list[float]]:
        """Seconds in all, and the milliseconds of each request, sorted. Raises RuntimeError if one failed."""
        dice = random.Random(callers)
        waiting = [_request({"inputs": dice.sample(self._texts, self._per_request)}) for _ in range(requests)]
        return asyncio.run(self._run(callers, waiting))

    async def _run(self, callers: int, waiting: list[bytes]) -> tuple[float, list[float]]:
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        connected = [
            await loop.create_connection(lambda: _Caller(waiting), "127.0.0.1", self._port) for _ in range(callers)
        ]
        async with asyncio.timeout(1_800):
            await asyncio.gather(*(caller.ended for _, caller in connected))
        took = sorted(milliseconds for _, caller in connected for milliseconds in caller.milliseconds)
        return time.perf_counter() - begun, took


def _request(body: dict[str, list[str]]) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /invocations HTTP/1.1", "Host: localhost", "Content-Type: application/json"
    return "\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode() + content


class _Caller(asyncio.Protocol):
    """One connection; its parser calls ``on_body`` and ``on_message_complete``."""

    def __init__(self, waiting: list[bytes]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.milliseconds: list[float] = []
        self._waiting = waiting
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        self._said = body

    def on_message_complete(self) -> None:
        self.milliseconds.append((time.perf_counter() - self._begun) * 1000)
        if self._parser.get_status_code() == 200:
            self._next()
        elif not self.ended.done():
            self.ended.set_exception(RuntimeError(f"a request failed: {self._said[:300]!r}"))

    def _next(self) -> None:
        if self._waiting:
            self._begun = time.perf_counter()
            self._transport.write(self._waiting.pop())
        else:
            self.ended.set_result(None)
            self._transport.close()
