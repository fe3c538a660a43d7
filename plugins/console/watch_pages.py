"""The page Watch: what was found when the model was watched, and why it was, or was not, trained again."""

from collections import defaultdict
from typing import Any

from include.settings import settings
from plugins.console import warehouse
from plugins.console.access import Pages, route
from plugins.console.catalogue import Words, of_request

SERIES_DAYS = 60
FAILED = "failed"


class WatchPages(Pages):
    """``/console/watch``."""

    route_base = "/console/watch"
    default_view = "watch"

    @route("/")
    def watch(self) -> str:
        """Drift and quality by day."""
        name = settings().model_name
        results, decisions = warehouse.watched(name, SERIES_DAYS), warehouse.drift_decisions(name)
        return self.page(
            "watch.html",
            model_name=name,
            why=_why(of_request(), decisions, results),
            checks=_by_check(results),
            alarms=[row for row in results if not is_good(row)][:50],
            decisions=decisions,
            days=SERIES_DAYS,
        )


def is_good(row: dict[str, Any]) -> bool:
    """Whether a check found nothing to complain of, or could not look."""
    return bool(row.get("verdict") != FAILED)


def _why(say: Words, decisions: list[warehouse.Decision], results: list[dict[str, Any]]) -> str:
    """Why the model was, or was not, trained again: one sentence."""
    if decisions:
        asked = say("Trained again") if decisions[0].facts.get("decision") == "retrain" else say("Not trained again")
        return f"{asked}: {decisions[0].reason}"
    if not results:
        return say("The model is not watched yet: nothing was found, so nothing was decided.")
    newest = max(str(row["day"]) for row in results)
    bad = sorted({str(row["check"]) for row in results if str(row["day"]) == newest and not is_good(row)})
    if bad:
        return say("On {day} these checks complained: {checks}. No training was decided on yet.", day=newest, checks=", ".join(bad))  # noqa: E501 # fmt: skip
    return say("Not trained again: on {day}, the last day that was looked at, nothing was found.", day=newest)


def _by_check(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each check its values by day, the oldest first, with the threshold of the newest."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in reversed(results):
        found[str(row["check"])].append(row)
    return [
        {
            "name": name,
            "points": [{"day": str(row["day"]), "value": row.get("value"), "good": is_good(row)} for row in rows],
            "threshold": rows[-1].get("threshold"),
            "last": rows[-1],
        }
        for name, rows in sorted(found.items())
    ]
