"""A champion's days beside its reference: which days are which, and what the drift test says of the last ones.

The reference is 28 days of live traffic with the answers of the champion of today. It reaches back before the
promotion, since the days before are scored again; but where a drift was seen before the promotion, the champion was
made for what came after it, and its reference begins with the drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from include.monitoring import days, drift
from include.monitoring.answers import DaySums
from include.monitoring.drift import LEAST_DAYS, WINDOWS, Comparison, Reference
from include.monitoring.traffic import Champion

REFERENCE_DAYS = 28
NEVER_REFERENCE = 7  # the last days are tested, and so are no part of it


@dataclass(frozen=True)
class Assessment:
    """What the drift test says of a champion's traffic up to a day.

    Args:
        comparisons: the clearest change first; empty if nothing was tested.
        reference: the reference's first and last day; None if it is too short.
        recent: the first and last of the days after it.
        texts: in the reference and after it.
        told: in one sentence what was compared with what, or why nothing was.
    """

    comparisons: tuple[Comparison, ...]
    reference: tuple[date, date] | None
    recent: tuple[date, date] | None
    texts: tuple[int, int]
    told: str

    @property
    def alarms(self) -> list[Comparison]:
        """The comparisons of which the test says that it is a drift."""
        return [one for one in self.comparisons if one.alarms]


@dataclass(frozen=True)
class Alarm:
    """A drift that was seen: on which day, since when the texts are others, and in which version's answers."""

    day: date
    since: date
    version: str


def begins(champion: Champion, alarms: Sequence[Alarm]) -> date:
    """The first day of a champion's reference.

    ``alarms`` are those there were; the first of the four weeks before the promotion says since when the champion's
    traffic is what it was made for.
    """
    promoted = champion.since.astimezone(UTC).date()
    earliest = promoted - timedelta(days=REFERENCE_DAYS)
    drifted = [one for one in alarms if earliest <= one.day <= promoted]
    return max(earliest, min(drifted, key=lambda one: one.day).since) if drifted else earliest


def ends(champion: Champion, alarms: Sequence[Alarm]) -> date | None:
    """The day before which a champion's reference ends, if it has seen a drift: days after that are no more of it.

    ``alarms`` are those before the day that is looked at.
    """
    promoted = champion.since.astimezone(UTC).date()
    mine = [one.since for one in alarms if one.version == champion.version and one.day > promoted]
    return min(mine, default=None)


def reference_size(days: int) -> int:
    """How many of so many days are the reference: 7 to 28, but none of the last week as soon as that leaves 7."""
    return min(max(days - NEVER_REFERENCE, LEAST_DAYS), REFERENCE_DAYS)


def assess(kept: Sequence[DaySums], rate: float, why_fewer: str = "", until: date | None = None) -> Assessment:
    """Tests the last of a champion's days against the first of them.

    Args:
        kept: all days since the reference's first, the oldest first.
        rate: false alarms allowed in a year.
        why_fewer: why the days do not begin earlier, if anything hindered that.
        until: the reference's days are before this one, if it leaves enough of them.
    """
    enough, size = len(kept) >= LEAST_DAYS + min(WINDOWS), reference_size(len(kept))
    if until is not None:
        size = min(size, max(sum(one.day < until for one in kept), LEAST_DAYS))
    if not enough:
        because = f" ({why_fewer})" if why_fewer else ""
        there = "is 1 day" if len(kept) == 1 else f"are {len(kept)} days"
        told = (
            f"nothing is tested yet: there {there} of the champion's traffic, and it takes "
            f"{LEAST_DAYS} as reference and {min(WINDOWS)} after it{because}"
        )
        return Assessment((), None, None, (sum(one.texts for one in kept), 0), told)
    before, after = kept[:size], kept[size:]
    span = ((before[0].day, before[-1].day), (after[0].day, after[-1].day))
    texts = (sum(one.texts for one in before), sum(one.texts for one in after))
    told = f"{texts[1]:,} texts of {span[1][0]} to {span[1][1]} beside {texts[0]:,} of {span[0][0]} to {span[0][1]}"
    if not texts[0]:
        return Assessment((), *span, texts, f"nothing is tested: the reference, {span[0][0]} to {span[0][1]}, is empty")
    together = days.join([one.days for one in kept])
    found = drift.assess(Reference(together[:size]), together[size:], rate)
    return Assessment(tuple(found), *span, texts, told)
