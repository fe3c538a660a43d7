"""Quiet hours: when alerts wait that are not urgent."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SPAN = re.compile(r"(\d\d?):(\d\d) ?- ?(\d\d?):(\d\d)(?: +(\S+))?")


@dataclass(frozen=True)
class QuietHours:
    """A span of each day, which may go over midnight, on the clock of a time zone."""

    start: time
    end: time
    zone: ZoneInfo

    def until(self, now: datetime) -> datetime | None:
        """When the quiet that there is now ends, in UTC; None if it is not quiet."""
        today = now.astimezone(self.zone).date()
        # Moments, not clock times: of the hour that is repeated in autumn the first counts, and it is not quiet twice.
        for day in (today - timedelta(days=1), today):
            begins = datetime.combine(day, self.start, self.zone).astimezone(UTC)
            last = day + timedelta(days=1) if self.start > self.end else day
            ends = datetime.combine(last, self.end, self.zone).astimezone(UTC)
            if begins <= now < ends:
                return ends
        return None


def parse(words: str) -> QuietHours | None:
    """``22:00-07:00 Europe/Berlin``, by default in UTC; None for nothing. Raises ValueError with what was wrong."""
    if not words.strip():
        return None
    found = _SPAN.fullmatch(words.strip())
    if not found:
        raise ValueError(f"{words!r} is no span of the day: write 22:00-07:00, or 22:00-07:00 Europe/Berlin")
    try:
        start, end = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
    except ValueError as error:
        raise ValueError(f"{words!r}: {error}") from error
    if start == end:
        raise ValueError(f"{words!r} is no span: it ends when it begins")
    try:
        zone = ZoneInfo(found[5] or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{words!r}: there is no time zone {found[5]}; one is called Europe/Berlin") from error
    return QuietHours(start, end, zone)


def checked(words: str) -> str:
    """The words of a setting, if they can be read."""
    parse(words)
    return words
