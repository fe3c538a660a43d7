"""A day of the champion as one HTML file that needs nothing else, and its pictures as PNG, for mail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from include.evaluation import charts
from include.evaluation.report import environment
from include.monitoring.answers import DaySums
from include.monitoring.assessment import Assessment
from include.monitoring.checks import Check
from include.monitoring.domain import Difference

SHOWN_DAYS = 84
SHOWN_TESTS = 12
SHOWN_LABELS = 25
LAST = 7  # days of the label mix that is shown
PARTS = ("schema", "quality", "distributions", "anomalies", "accuracy")


@dataclass(frozen=True, eq=False)
class Day:
    """All that a day's page shows.

    Args:
        model: the registered model.
        day: whose traffic and uploads.
        version: the champion's; empty if there is none.
        headline: in two or three words.
        sentence: the decision's reason, or what stopped the checks.
        checks: of the day.
        history: checks of the weeks before and of the day, the oldest first.
        assessment: of the drift test; None without a champion.
        kept: the champion's days.
        difference: what has changed, if something has.
        events: days on which something happened, by its name: promotions, retrainings.
        ids: names and values of where it comes from.
    """

    model: str
    day: date
    version: str
    headline: str
    sentence: str
    checks: Sequence[Check]
    history: Sequence[tuple[date, Check]]
    assessment: Assessment | None
    kept: Sequence[DaySums]
    difference: Difference | None
    events: dict[str, list[date]]
    ids: dict[str, str]


def write_day_report(found: Day, folder: Path) -> Path:
    """Writes day.html and its pictures; returns the page's path. Texts are escaped, the page makes no request."""
    folder.mkdir(parents=True, exist_ok=True)
    page = (
        environment()
        .get_template("day.html.jinja")
        .render(
            day=found,
            checks=sorted(found.checks, key=lambda one: (one.verdict != "failed", one.verdict == "not_checked")),
            failed=sum(one.verdict == "failed" for one in found.checks),
            tests=found.assessment.comparisons[:SHOWN_TESTS] if found.assessment else [],
            pictures=_pictures(found, folder),
            last=LAST,
        )
    )
    path = folder / "day.html"
    path.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path


def _pictures(found: Day, folder: Path) -> dict[str, str]:
    days = [found.day - timedelta(days=ago) for ago in reversed(range(SHOWN_DAYS))]
    days = [day for day in days if day >= min((day for day, _ in found.history), default=found.day)]
    values: dict[str, dict[date, float | None]] = {}
    for day, check in found.history:
        values.setdefault(check.name, {})[day] = check.value

    def by_day(name: str) -> list[float | None]:
        return [values.get(name, {}).get(day) for day in days]

    pictures = dict.fromkeys(("volume", "score", "accuracy", "labels"), "")
    if len(days) > 1:
        volume = {"answers": by_day("predictions.rows"), "uploaded rows": by_day("uploads.rows")}
        pictures["volume"] = charts.over_days(days, volume, folder / "volume.png", unit="rows", marks=found.events)
        if any(value is not None for value in by_day("drift.score")):
            pictures["score"] = charts.over_days(
                days, {"drift score": by_day("drift.score")}, folder / "score.png", unit="drift score",
                limit=(1.0, "a drift is told"), marks=found.events,
            )  # fmt: skip
        pictures["accuracy"] = _accuracy(days, by_day, found, folder)
    pictures["labels"] = _labels(found, folder)
    return pictures


def _accuracy(days: list[date], by_day: Any, found: Day, folder: Path) -> str:
    series = {
        "live": by_day("accuracy.live"),
        "estimated": by_day("accuracy.estimated"),
        "golden rows": by_day("accuracy.golden"),
    }
    shown = {name: values for name, values in series.items() if any(value is not None for value in values)}
    if not shown:
        return ""
    bands: dict[str, tuple[list[float | None], list[float | None]]] = {
        name: (by_day(f"accuracy.{name}_low"), by_day(f"accuracy.{name}_high"))
        for name in ("live", "estimated")
        if name in shown
    }
    return charts.over_days(days, shown, folder / "accuracy.png", unit="accuracy", bands=bands, marks=found.events)


def _labels(found: Day, folder: Path) -> str:
    """The mix of the last week beside the reference's."""
    if not found.assessment or not found.assessment.reference or not found.kept:
        return ""
    end = found.assessment.reference[1]
    before, now = (_predicted(some) for some in ([one for one in found.kept if one.day <= end], found.kept[-LAST:]))
    names = sorted({*before, *now}, key=lambda name: -max(before.get(name, 0), now.get(name, 0)))[:SHOWN_LABELS]
    if not sum(now.values()):
        return ""
    return charts.two_mixes(
        names,
        [now.get(name, 0) for name in names],
        [before.get(name, 0) for name in names],
        folder / "labels.png",
        titles=(f"last {LAST} days", "reference"),
    )


def _predicted(kept: Sequence[DaySums]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in kept:
        for label, count in one.predicted.items():
            found[label] = found.get(label, 0) + count
    return found
