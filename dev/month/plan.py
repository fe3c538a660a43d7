"""What happens on which day of the month: four weeks of traffic, a file by FTP before each, and four things more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType

DAYS = 28
CAMPAIGN, POISON, DRIFT, FORCED = 11, 12, 15, 23
"""Days, counted from 0: refunds are advertised; a poisoned file is uploaded; a new market writes in German, from then
on; somebody makes a bad model the champion."""

WEEKEND = 0.6  # of a working day's texts
TEXTS = 150
GERMAN = 0.5
WEEKLY_ROWS = (420, 120, 120, 120)
GERMAN_ROWS = 0.3  # of the last week's file
POISONED_ROWS = 420
SAMPLED = 15  # texts a day that somebody labels, a day later
CORRECTED = 0.9  # of the wrong answers that people correct; but for the drift nobody minds them
WATCHED_BY_DAG = frozenset({0, 6, 10, CAMPAIGN, POISON, DRIFT - 1, DRIFT, DRIFT + 1, 20, FORCED, 27})
"""Days whose night runs data_validation_dag, whatever the core finds; it runs on all others on which that finds
something."""


@dataclass(frozen=True)
class Day:
    """One day.

    Args:
        number: 0 is the first, a Sunday.
        date: whose traffic it is (UTC).
        texts: asked of the server.
        german: share of them.
        weights: of labels, by how much more often they come.
        weekly_rows: of the file that lies on the FTP server before the day begins; 0 if none does.
    """

    number: int
    date: date
    texts: int
    german: float = 0.0
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    weekly_rows: int = 0

    @property
    def week(self) -> int:
        """1 to 4."""
        return self.number // 7 + 1

    def at(self, hour: int, minute: int = 0) -> datetime:
        """A time of the day; after hour 24 of the next one."""
        return datetime.combine(self.date, time(), UTC) + timedelta(hours=hour, minutes=minute)


def month(today: date) -> list[Day]:
    """The last four whole weeks before a day, each from Sunday to Saturday as weekly_etl's are."""
    end = today - timedelta(days=(today.weekday() + 1) % 7)
    return [_day(number, end - timedelta(days=DAYS - number)) for number in range(DAYS)]


def _day(number: int, at: date) -> Day:
    texts = round(TEXTS * (WEEKEND if at.weekday() >= 5 else 1))
    weights: dict[str, float] = {}
    if number == CAMPAIGN:
        texts, weights = round(1.3 * texts), {"refund_request": 4.0}
    german = GERMAN if number >= DRIFT else 0.0
    rows = 0 if number % 7 else WEEKLY_ROWS[number // 7]
    return Day(number, at, texts, german, weights, rows)
