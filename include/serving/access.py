"""Who may ask, how much and how often."""

import hmac
import time

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.settings.serving import ServingSettings

OPEN = ("/ping", "/health", "/live", "/ready", "/v2/health/live", "/v2/health/ready")
"""Paths for probes: they say nothing of texts and answers."""


class Refused(HTTPException):
    """A request that is not answered, and why. FastAPI lets it through wherever it is raised."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)


class Access:
    """Tokens, and how often each may ask.

    Args:
        config: of the server; without tokens anyone may ask.
    """

    def __init__(self, config: ServingSettings) -> None:
        self._tokens = [
            token.strip().encode() for token in config.tokens.get_secret_value().split(",") if token.strip()
        ]
        self._per_minute = config.requests_per_minute
        self._asked: dict[bytes, tuple[float, float]] = {}  # a token's allowance, and when it was counted

    def check(self, authorization: str) -> None:
        """Lets a request pass whose token is known and has not asked too often; raises Refused."""
        given = authorization.removeprefix("Bearer ").strip().encode() if authorization.startswith("Bearer ") else b""
        token = b""
        if self._tokens:
            known = [one for one in self._tokens if hmac.compare_digest(one, given)]
            if not known:
                headers = {"WWW-Authenticate": "Bearer"}
                raise Refused(401, "a token is needed: Authorization: Bearer <token>", headers)
            token = known[0]
        if self._per_minute:
            self._count(token)

    def _count(self, token: bytes) -> None:
        """A bucket that fills by so many requests per minute, and holds a minute's."""
        now = time.monotonic()
        left, then = self._asked.get(token, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - then) * self._per_minute / 60)
        if left < 1:
            self._asked[token] = left, now
            wait = max(1, round((1 - left) * 60 / self._per_minute))
            raise Refused(
                429,
                f"more than {self._per_minute} requests a minute: try again in {wait} s",
                {"Retry-After": str(wait)},
            )
        self._asked[token] = left - 1, now


class BodyLimit:
    """Reads each body whole before anything else looks at it, and refuses those that are too large."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's own."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, size, more = b"", 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size <= self._most:
                body += message.get("body", b"")
        if size > self._most:  # read to its end, or the caller would meet a closed connection and no answer
            error = f"the body is larger than {self._most // 1024} KiB: send fewer texts at a time"
            await JSONResponse({"error": error}, 413)(scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()  # a caller that goes
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)
