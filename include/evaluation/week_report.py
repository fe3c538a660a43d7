"""A week of the ETL as one HTML file that needs nothing else, and its pictures as PNG, for mail."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from include.evaluation import charts
from include.evaluation.report import environment

MOST_BARS = 25
SHOWN_WEEKS = 26


def write_week_report(facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Writes week.html and its pictures; returns the page's path. Texts are escaped, the page makes no request.

    ``facts`` are what ``etl_report.facts`` gathers, ``history`` those of the weeks before, oldest first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    explored, before = facts["explored"], history[-1]["explored"] if history else None
    names = list(explored["labels"])[:MOST_BARS]
    pictures = {"labels": "", "lengths": "", "history": ""}
    if names:
        pictures["labels"] = charts.two_mixes(
            names,
            [explored["labels"][name] for name in names],
            [before["labels"].get(name, 0) for name in names] if before else None,
            folder / "labels.png",
        )
        pictures["lengths"] = charts.two_mixes(
            facts["length_names"],
            explored["lengths"],
            before["lengths"] if before else None,
            folder / "lengths.png",
            upright=True,
        )
    weeks = [*history, facts][-SHOWN_WEEKS:]
    if len(weeks) > 1:
        series = {
            "new or changed": [one["merge"].get("new", 0) + one["merge"].get("changed", 0) for one in weeks],
            "left out": [sum(one["quality"].get("left_out", {}).values()) for one in weeks],
        }
        pictures["history"] = charts.weeks([one["week"] for one in weeks], series, folder / "history.png")
    page = environment().get_template("week.html.jinja").render(facts=facts, weeks=weeks, pictures=pictures)
    path = folder / "week.html"
    path.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path
