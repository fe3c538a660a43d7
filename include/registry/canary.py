"""A canary: a new champion that answers a share of the requests until its time is over, or until it has failed.

Its version's tags say so, which the move of the alias sets before the alias moves, and any later move to it takes away:

====================  ==============================================================================================
``canary_percent``    of the requests that it answers; the others go on to the version before, the alias ``previous``
``canary_until``      after this it answers all of them
``canary_failed``     why it answers none any more: set by a server that saw it fail, for all to see. The alias is moved
                      back by whoever moves aliases (``promotion.rollback``), which is told this version's number
====================  ==============================================================================================
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from include.registry import models
from include.registry.models import ModelVersion

FACT = "canary"
"""The fact of a promotion that says how the new champion is baked."""

PERCENT, UNTIL, FAILED = "canary_percent", "canary_until", "canary_failed"


@dataclass(frozen=True)
class Canary:
    """A new champion that has only a share of the requests: how large, until when, and why it failed."""

    percent: float
    until: datetime
    failed: str = ""

    def bakes(self, now: datetime) -> bool:
        """Whether the version before still answers the other requests."""
        return bool(self.failed) or now < self.until


def begin(percent: float, minutes: float, now: datetime) -> dict[str, Any]:
    """What the ledger says of a promotion whose champion begins as a canary."""
    return {"percent": percent, "until": (now + timedelta(minutes=minutes)).isoformat()}


def tags(facts: dict[str, Any]) -> dict[str, str]:
    """A move's tags of the version that it makes champion."""
    found = facts.get(FACT) or {}
    return {PERCENT: str(found.get("percent", "")), UNTIL: str(found.get("until", "")), FAILED: ""}


def of(version: ModelVersion) -> Canary | None:
    """A version's canary by its tags; None if it has none, or if somebody wrote nonsense in them."""
    try:
        percent, until = float(version.tags.get(PERCENT) or 0), datetime.fromisoformat(version.tags.get(UNTIL, ""))
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return Canary(percent, until, version.tags.get(FAILED, "")) if percent > 0 else None


def fail(version: ModelVersion, reason: str) -> None:
    """Tells all servers that a canary is not to answer any more."""
    models.tag(version, {FAILED: reason[:1000]})
