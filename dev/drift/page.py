"""Writes docs/monitoring.md and its picture from what was simulated."""

from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
from matplotlib.figure import Figure

from dev.drift.runs import LONGEST
from dev.drift.world import KINDS
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
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return templates.get_template("monitoring.md.jinja").render(
        found=found,
        kinds=KINDS,
        longest=LONGEST,
        shown=_shown,
        wins=sum(cell["ours"]["days"] == _best(cell) <= LONGEST for cell in found["detection"]),
        error={"known": _error(found, strange=False), "strange": _error(found, strange=True)},
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """The picture: false alarms a year, days until a drift is found, and estimated beside true accuracy."""
    import matplotlib

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
            shown = [one for one in found["estimated_accuracy"] if bool(one["strange"]) == strange]
            accuracy.plot([o["true"] for o in shown], [o["estimated"] for o in shown], "o", color=colour, label=name)
        ends = [min(one["true"] for one in found["estimated_accuracy"]), 1]
        accuracy.plot(ends, ends, color="#1b2430", linewidth=0.8)
        accuracy.set_xlabel("true accuracy")
        accuracy.set_title("Estimated without labels")
        accuracy.legend(frameon=False, fontsize=7)
        figure.savefig(path, metadata={"Date": None})


def _best(cell: dict[str, Any]) -> float:
    return float(min(cell[side]["days"] for side in SIDES))


def _shown(cell: dict[str, Any], side: str) -> str:
    """The median, bold if it is the best, and the share that was found if it is not all."""
    days, found = cell[side]["days"], cell[side]["found"]
    told = "not found" if days > LONGEST else f"{days:g}"
    told = f"**{told}**" if days == _best(cell) <= LONGEST else told
    return told if found == 1 else f"{told} ({found:.0%})"


def _error(found: dict[str, Any], *, strange: bool) -> float:
    """Mean absolute error of the estimated accuracy."""
    errors = [
        abs(one["true"] - one["estimated"]) for one in found["estimated_accuracy"] if bool(one["strange"]) == strange
    ]
    return fmean(errors) if errors else 0.0
