"""The month as a picture: accuracy true, estimated and by people's labels; alarms and what became the champion."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dev.month.telling import Seen

COLOURS = {
    "promoted": "#2a7a3b",
    "rejected": "#8a8a8a",
    "forced": "#c1121f",
    "rolled_back": "#1d4e89",
    "alarm": "#e07a00",
}
WORDS = {
    "promoted": "promoted", "rejected": "rejected", "forced": "bad model forced", "rolled_back": "rolled back",
    "alarm": "drift alarm",
}  # fmt: skip


def draw(days: Sequence[Seen], path: Path) -> Path:
    """Writes the picture as PNG; returns its path."""
    figure = Figure(figsize=(12, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    at = [date.fromisoformat(day.date) for day in days]
    above.plot(
        at, [day.true for day in days], color="black", marker="o", markersize=3, label="true (the demo knows it)"
    )
    _line(above, days, "accuracy.estimated", "#7b2cbf", "estimated, without labels")
    _line(above, days, "accuracy.live", "#0077b6", "live, by late labels")
    above.plot(at, [_nan(day.value("accuracy.golden")) for day in days], color="#999", linestyle=":",
               label="on the golden rows")  # fmt: skip
    above.set_ylim(0, 1.04)
    above.set_ylabel("accuracy")
    above.set_title("A month of the champion")
    above.legend(loc="lower left", fontsize=8)
    for start in at[::7]:
        above.axvline(start, color="#ddd", zorder=0)
    rows = list(COLOURS)
    for day, when in zip(days, at, strict=True):
        for event in day.events:
            if event.kind not in COLOURS:
                continue
            row = rows.index(event.kind)
            below.scatter([when], [row], color=COLOURS[event.kind], s=40)
            if event.version:
                below.annotate(f"v{event.version}", (when, row), textcoords="offset points", xytext=(6, -3), fontsize=8)
            above.axvline(when, color=COLOURS[event.kind], alpha=0.25)
    below.set_yticks(range(len(rows)), [WORDS[kind] for kind in rows], fontsize=8)
    below.set_ylim(len(rows) - 0.5, -0.5)
    below.set_xticks(at[::7], [f"week {number + 1}\n{when:%d %b}" for number, when in enumerate(at[::7])])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _line(axes: Any, days: Sequence[Seen], check: str, colour: str, label: str) -> None:
    """A check's values with the interval around them; days without one are gaps."""
    at = [date.fromisoformat(day.date) for day in days]
    values = [_nan(day.value(check)) for day in days]
    axes.plot(at, values, color=colour, marker=".", label=label)
    low, high = ([_nan(day.value(f"{check}_{end}")) for day in days] for end in ("low", "high"))
    axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
