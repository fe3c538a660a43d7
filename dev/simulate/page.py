"""Writes docs/promotion.md and its picture from what was simulated."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dev.pages import templates
from dev.simulate import runs
from dev.state import REPOSITORY
from include.evaluation.comparison import rows_for, smallest_visible_drop
from include.evaluation.gates import NEW_ANCHOR, Thresholds, decide

DOCS = REPOSITORY / "docs"
SHOWN_ROWS = (100, 200, 400, 600, 1000, 2000)
SHOWN_DIFFERENCES = (-0.1, -0.05, -0.04, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05)
COLOURS = ("#c9a0dc", "#e08a1e", "#d64545", "#2a9d6f", "#2f7de1", "#1b2430")


def write(found: dict[str, Any], folder: Path = DOCS) -> Path:
    """Writes promotion.md and promotion.svg; returns the page's path."""
    draw(found, folder / "promotion.svg")
    path = folder / "promotion.md"
    path.write_text(render(found))
    return path


def render(found: dict[str, Any]) -> str:
    """The page in Markdown."""
    thresholds = Thresholds(**found["thresholds"])
    return (
        templates(Path(__file__).parent)
        .get_template("promotion.md.jinja")
        .render(
            found=found,
            thresholds=thresholds,
            bounds=list(runs.bounds(found)),
            new_anchor=NEW_ANCHOR,
            shown_rows=SHOWN_ROWS,
            shown_differences=SHOWN_DIFFERENCES,
            first=_shares(found["cells"], 0, 5),
            later=_shares(found["cells"], runs.WEEKS, 5),
            keep=_shares(found["kept_when_unsure"]["cells"], 0, 5),
            by_classes=_by_classes(found),
            visible=list(_visible(thresholds)),
            needed=rows_for(thresholds.max_accuracy_drop, runs.USUAL, thresholds.gate_confidence),
            zipped=list(zip(*found["years_by_golden_rows"].values(), strict=True)),
            kept_later=found["kept_when_unsure"]["equal_ones_after_a_year"],
            classes=runs.CLASSES,
            example=_example(thresholds).reason,
            decisions=sum(cell["decisions"] for cell in found["cells"]),
        )
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """The picture: promoted by true difference, in the first week and after a year, and how years of decline end."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "promotion", "font.size": 9}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        first, later, decline = figure.subplots(1, 3)
        for axes, after, title in ((first, 0, "In the first week"), (later, runs.WEEKS, "After 52 promotions")):
            shares = _shares(found["cells"], after, 5)
            for rows, colour in zip(SHOWN_ROWS, COLOURS, strict=True):
                points = sorted((100 * difference, 100 * one) for (of, difference), one in shares.items() if of == rows)
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=f"{rows:,}")
            axes.axvspan(-4.05, -3.95, color="#d64545", alpha=0.25)
            axes.set_xlabel("true difference to the champion, points")
            _percent(axes, title, "promoted")
        first.legend(title="golden rows", fontsize=8, frameon=False)
        for name, colour in (("promote", "#2f7de1"), ("keep", "#e08a1e")):
            years = found["years_by_golden_rows"][name]
            ended = [100 * year["ended_worse_than_twice_the_margin"] / year["years"] for year in years]
            label = f"BERT_WHEN_UNSURE={name}"
            decline.plot([f"{year['golden_rows']:,}" for year in years], ended, color=colour, marker="o", label=label)
        decline.set_xlabel("golden rows")
        decline.legend(fontsize=8, frameon=False)
        _percent(decline, "Years of slightly worse challengers", "end over 4 points below the best")
        # None leaves out the date, which would make each picture another.
        figure.savefig(path, facecolor="white", metadata=dict.fromkeys(("Date", "Creator")))


def _percent(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
    axes.set_ylabel(f"{label}, %")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _shares(cells: list[runs.Cell], after: int, classes: int) -> dict[tuple[int, float], float]:
    """The promoted share by golden rows and true difference, at the usual discordance."""
    return {
        (cell["golden_rows"], cell["true_difference"]): runs.share(cell)
        for cell in cells
        if cell["after_promotions"] == after
        and cell["classes"] == classes
        and cell["discordance"] == max(runs.USUAL, abs(cell["true_difference"]))
    }


def _by_classes(found: dict[str, Any]) -> dict[tuple[int, int], float]:
    """The smallest share of equal challengers promoted, by golden rows and classes, at any time and discordance."""
    worst: dict[tuple[int, int], float] = {}
    for cell in found["cells"]:
        if cell["true_difference"] == 0:
            place = (cell["golden_rows"], cell["classes"])
            worst[place] = min(worst.get(place, 1.0), runs.share(cell))
    return worst


def _visible(thresholds: Thresholds) -> Iterator[tuple[int, list[float]]]:
    """The drop that so many golden rows show four times in five, by discordance; the anchor's before the champion's."""
    margin = thresholds.max_accuracy_drop
    for rows in (30, *SHOWN_ROWS, 5000):
        yield (
            rows,
            [
                smallest_visible_drop(rows, discordance, confidence, margin)
                for discordance in runs.ACCURACIES
                for confidence in (thresholds.anchor_confidence, thresholds.gate_confidence)
            ],
        )


def _example(thresholds: Thresholds) -> Any:
    """A decision as a run's note has it."""
    labels = [f"class {row % 5}" for row in range(600)]
    champion = ["other" if row < 40 else label for row, label in enumerate(labels)]
    challenger = ["other" if 17 <= row < 61 else label for row, label in enumerate(labels)]
    return decide(labels, challenger, champion, champion, thresholds)
