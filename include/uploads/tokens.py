"""Tokens by which a page of somebody's own may start a training and read its state, and nothing else.

Only the hash of a secret is kept, as ``tokens/<hash>.json``: whoever reads the bucket has no token by that, and whoever
writes there could drop files into incoming/ as well.
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from include import lake, objects
from include.uploads.open_batches import in_parallel

PREFIX = "bert_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")


class Token(BaseModel):
    """What is known of a token."""

    model_config = ConfigDict(frozen=True)

    digest: str
    name: str
    by: str
    at: datetime
    revoked_by: str = ""
    revoked_at: datetime | None = None

    @property
    def holds(self) -> bool:
        """Whether it was not revoked."""
        return self.revoked_at is None


def create(name: str, by: str) -> tuple[Token, str]:
    """A new token and its secret, which is nowhere else. Raises ValueError if the name will not do."""
    if not NAME.fullmatch(name):
        raise ValueError("a token's name has letters, digits, blanks, dots, dashes, and at most 60 of them")
    secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
    token = Token(digest=_digest(secret), name=name, by=by, at=datetime.now(UTC))
    return _keep(token), secret


def find(secret: str) -> Token | None:
    """The token that a secret is of, if it holds."""
    if not secret.startswith(PREFIX):
        return None
    token = _read(lake.token(_digest(secret)))
    return token if token and token.holds else None


def every() -> list[Token]:
    """All tokens there ever were, the newest first."""
    found = in_parallel(_read, objects.find(lake.token()))
    return sorted((token for token in found if token), key=lambda token: token.at, reverse=True)


def revoke(digest: str, by: str) -> Token | None:
    """Makes a token useless from now on; None if there is none."""
    token = _read(lake.token(digest)) if re.fullmatch(r"[0-9a-f]{64}", digest) else None
    if token is None or not token.holds:
        return token
    return _keep(token.model_copy(update={"revoked_by": by, "revoked_at": datetime.now(UTC)}))


def _keep(token: Token) -> Token:
    objects.write_json(lake.token(token.digest), token.model_dump(mode="json"))
    return token


def _read(uri: str) -> Token | None:
    try:
        return Token.model_validate(objects.read_json(uri)) if objects.exists(uri) else None
    except ValueError:  # of another release, or no JSON
        return None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
