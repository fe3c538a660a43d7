"""Writes docs/monitoring.md and its picture from what was simulated."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dev.drift.runs import LONGEST, bounds, estimate_error, quickest
from dev.drift.world import KINDS
from dev.pages import templates
from dev.state import REPOSITORY

DOCS = REPOSITORY / "docs"
SIDES = {"ours": "#2a9d6f", "evidently": "#2f7de1", "daily_ks": "#e08a1e"}


def write(found: dict[str, Any], folder: Path = DOCS) -> Path:
    """Writes monitoring.md and monitoring.svg; returns the page's path."""
    draw(found, folder / "monitoring.svg")
    path = folder / "monitoring.md"
    path.write_text(render(found))
    return path


def render(found: dict[str, Any]) -> str:
    """The page in Markdown."""
    estimated = found["estimated_accuracy"]
    return (
        templates(Path(__file__).parent)
        .get_template("monitoring.md.jinja")
        .render(
            found=found,
            kinds=KINDS,
            longest=LONGEST,
            shown=_shown,
            bounds=list(bounds(found)),
            hidden=sum(one["hidden"] for one in estimated),
            error={
                "shown": estimate_error(estimated),
                "known": estimate_error([one | {"hidden": False} for one in estimated if not one["strange"]]),
                "strange": estimate_error([one | {"hidden": False} for one in estimated if one["strange"]]),
            },
        )
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """The picture: false alarms a year, days until a drift is found, and estimated beside true accuracy."""
    import matplotlib

    estimated = found["estimated_accuracy"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "monitoring", "font.size": 9}):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        alarms, days, accuracy = figure.subplots(1, 3)
        alarms.bar(list(SIDES), [found["no_drift"][side] for side in SIDES], color=list(SIDES.values()))
        alarms.axhline(1, color="#d64545", linewidth=1)
        alarms.set_title("False alarms a year")
        for side, colour in SIDES.items():
            values = [cell[side]["days"] for cell in found["detection"]]
            days.plot(values, range(len(values)), "o", color=colour, label=side, alpha=0.8)
        names = [f"{cell['kind']}, {cell['texts_a_day']:,}" for cell in found["detection"]]
        days.set_yticks(range(len(names)), names, fontsize=6)
        days.set_xscale("log")
        days.set_title("Days until found, at the same rate")
        days.legend(frameon=False, fontsize=7)
        for strange, colour, name in ((False, "#2a9d6f", "known labels"), (True, "#d64545", "some unknown labels")):
            for hidden, mark, told in ((False, "o", name), (True, "x", f"{name}, hidden")):
                weeks = [one for one in estimated if (one["strange"] > 0, one["hidden"]) == (strange, hidden)]
                places = [[one[side] for one in weeks] for side in ("true", "estimated")]
                accuracy.plot(*places, mark, color=colour, label=told)
        ends = [min(one["true"] for one in estimated), 1]
        accuracy.plot(ends, ends, color="#1b2430", linewidth=0.8)
        accuracy.set_xlabel("true accuracy")
        accuracy.set_title("Estimated without labels")
        accuracy.legend(frameon=False, fontsize=7)
        figure.savefig(path, metadata={"Date": None})


def _shown(cell: dict[str, Any], side: str) -> str:
    """The median, bold if it is the best, and the share that was found if it is not all."""
    days, found = cell[side]["days"], cell[side]["found"]
    told = "not found" if days > LONGEST else f"{days:g}"
    told = f"**{told}**" if days == quickest(cell) <= LONGEST else told
    return told if found == 1 else f"{told} ({found:.0%})"
