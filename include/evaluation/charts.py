"""The report's pictures, as PNG files and as inline SVG that takes on the page's text colour."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.evaluation.comparison import Comparison
from include.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INK = "#1b2430"  # text and lines; becomes currentColor in SVG, so that a dark page shows it light
BLUE, ORANGE, GREEN, RED = "#2f7de1", "#e08a1e", "#2a9d6f", "#d64545"
NAMED_CLASSES = 90  # with more, names on the axes are too small to read
COUNTED_CLASSES = 20  # with more, numbers in the cells are
LOSSES = {"train_loss": "training", "validation_loss": "validation"}
SCORES = {"validation_macro_f1": "macro-F1", "validation_accuracy": "accuracy"}
STYLE = {
    "font.size": 10,
    "text.parse_math": False,  # a label may hold a $
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def learning_curve(history: list[dict[str, float]], best_epoch: int | None, png: Path) -> str:
    """Draws loss and scores by epoch, one dict per epoch in ``history``; writes the PNG and returns the SVG."""
    with _style():
        figure = _figure(10, 3.4)
        for axes, series, title in zip(
            figure.subplots(1, 2), (LOSSES, SCORES), ("Loss", "Validation scores"), strict=True
        ):
            _lines(axes, history, series)
            axes.set_title(title, loc="left", fontweight="bold")
            axes.set_ylim(*_ends(history, series))
            if best_epoch is not None:
                axes.axvline(best_epoch, color=INK, linestyle=":", linewidth=1, alpha=0.6, label="kept epoch")
            axes.legend(loc="best")
        return _save(figure, png)


def confusion_matrix(metrics: Metrics, png: Path) -> str:
    """Draws true against predicted classes, each row as shares of its class; writes the PNG and returns the SVG."""
    count = len(metrics.labels)
    side = min(3.0 + 0.5 * count, 13.0)
    with _style():
        figure = _figure(side + 1, side)
        axes = figure.subplots()
        axes.imshow(_colours(metrics), interpolation="nearest", aspect="equal")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        _name_classes(axes, metrics.labels)
        if count <= COUNTED_CLASSES:
            _write_counts(axes, metrics)
        return _save(figure, png)


def intervals(comparisons: list[Comparison], margin: float, png: Path) -> str:
    """Draws where the challenger's true difference to each other model may lie; writes the PNG and returns the SVG."""
    with _style():
        figure = _figure(10, 1.1 + 0.45 * len(comparisons))
        axes = figure.subplots()
        for place, one in enumerate(reversed(comparisons)):
            colour = RED if one.upper < 0 and one.lower < -margin else GREEN
            ends = [100 * one.lower, 100 * one.upper]
            axes.plot(ends, [place, place], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(100 * one.difference, place, color=colour, marker="o", markersize=7)
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(-100 * margin, color=INK, linestyle=":", linewidth=1.5, label="tolerated drop")
        axes.set_yticks(range(len(comparisons)), [f"beside the {one.against}" for one in reversed(comparisons)])
        axes.set_ylim(-0.6, len(comparisons) - 0.4)
        axes.set_xlabel("points of accuracy, challenger minus the other model")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)  # above: a line may be anywhere inside
        return _save(figure, png)


def two_mixes(
    names: list[str],
    now: list[int],
    before: list[int] | None,
    png: Path,
    *,
    upright: bool = False,
    titles: tuple[str, str] = ("this week", "last week"),
) -> str:
    """Draws shares of this week, and of the week before beside them; writes the PNG and returns the SVG."""
    mixes = [(titles[0], BLUE, now)] + ([(titles[1], ORANGE, before)] if before and sum(before) else [])
    with _style():
        figure = _figure(10, 3.2 if upright else 1.2 + 0.3 * len(names))
        axes = figure.subplots()
        thick = 0.8 / len(mixes)
        for number, (title, colour, counts) in enumerate(mixes):
            shares = [100 * count / max(sum(counts), 1) for count in counts]
            places = [at + thick * (number - (len(mixes) - 1) / 2) for at in range(len(names))]
            draw = axes.bar if upright else axes.barh
            draw(places, shares, thick, color=colour, label=title)
        short = [name if len(name) <= 40 else f"{name[:39]}…" for name in names]
        if upright:
            axes.set_xticks(range(len(names)), short)
            axes.set_ylabel("% of texts")
        else:
            axes.set_yticks(range(len(names)), short)
            axes.invert_yaxis()
            axes.set_xlabel("% of texts")
        axes.legend(loc="best")
        return _save(figure, png)


def weeks(names: list[str], series: dict[str, list[int]], png: Path) -> str:
    """Draws counts by week; writes the PNG and returns the SVG."""
    with _style():
        figure = _figure(10, 3)
        axes = figure.subplots()
        for (title, counts), colour in zip(series.items(), (GREEN, RED, BLUE, ORANGE), strict=False):
            axes.plot(range(len(names)), counts, color=colour, marker="o", markersize=4, linewidth=2, label=title)
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 12 else 0)
        axes.set_ylabel("texts")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=INK, alpha=0.15)
        axes.legend(loc="best")
        return _save(figure, png)


def over_days(
    days: list[date],
    series: dict[str, list[float | None]],
    png: Path,
    *,
    unit: str,
    bands: dict[str, tuple[list[float | None], list[float | None]]] | None = None,
    limit: tuple[float, str] | None = None,
    marks: dict[str, list[date]] | None = None,
) -> str:
    """Draws values by day, with gaps where there are none; writes the PNG and returns the SVG.

    ``bands`` are the lower and upper ends of what a series' true value may be, ``limit`` a line with its name, and
    ``marks`` days on which something happened.
    """
    import numpy as np
    from matplotlib.dates import date2num

    at = date2num(np.array(days, "datetime64[D]"))
    with _style():
        figure = _figure(10, 2.8)
        axes = figure.subplots()
        axes.xaxis_date()
        for (title, values), colour in zip(series.items(), (BLUE, ORANGE, GREEN, RED), strict=False):
            axes.plot(at, np.array(values, float), color=colour, marker="o", markersize=3, linewidth=2, label=title)
            if bands and title in bands:
                low, high = (np.array(ends, float) for ends in bands[title])
                axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        if limit:
            axes.axhline(limit[0], color=RED, linestyle=":", linewidth=1.5, label=limit[1])
        for (title, on), colour in zip((marks or {}).items(), (GREEN, RED, INK), strict=False):
            for number, day in enumerate(on):
                axes.axvline(float(date2num(day)), color=colour, linewidth=1, alpha=0.6, label="" if number else title)
        if not bands:  # a share of texts hardly ever reaches down to nothing
            axes.set_ylim(bottom=0)
        axes.set_ylabel(unit)
        axes.grid(axis="y", color=INK, alpha=0.15)
        axes.legend(loc="best")
        axes.tick_params(axis="x", rotation=30)
        return _save(figure, png)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A label in a script that the bundled font lacks: browsers have their own, and the PNG shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: that keeps figures alive in a global, and tasks may share a process.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _lines(axes: "Axes", history: list[dict[str, float]], series: dict[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for (key, name), colour in zip(series.items(), (BLUE, ORANGE), strict=True):
        points = [(epoch["epoch"], epoch[key]) for epoch in history if key in epoch]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, linewidth=2, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=INK, alpha=0.15)
    axes.set_xlabel("epoch")


def _ends(history: list[dict[str, float]], series: dict[str, str]) -> tuple[float | None, float | None]:
    """An axis on which a small change looks small: losses from zero, scores up to one, over a fifth at least."""
    values = [epoch[key] for epoch in history for key in series if math.isfinite(epoch.get(key, math.nan))]
    if series is not SCORES:
        return 0, 1.05 * max(values) if values and max(values) > 0 else None
    lowest = min(values, default=0.8)
    return min(0.8, math.floor(10 * lowest) / 10), 1.01


def _colours(metrics: Metrics) -> "NDArray[Any]":
    """(k, k, 4): green on the diagonal, red off it, the more opaque the larger the share of the true class's rows."""
    import numpy as np
    from matplotlib.colors import to_rgb

    counts = np.array(metrics.confusion, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = np.empty((*shares.shape, 4))
    image[..., :3] = to_rgb(RED)
    image[np.diag_indices(len(shares))] = [*to_rgb(GREEN), 1]
    # The square root lets one wrong row in fifty be seen; empty cells keep a trace, so that the grid shows.
    image[..., 3] = np.maximum(np.sqrt(shares) * 0.9, 0.04)
    return image


def _name_classes(axes: "Axes", labels: list[str]) -> None:
    if len(labels) > NAMED_CLASSES:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [label if len(label) <= 26 else f"{label[:25]}…" for label in labels]
    size = 9 if len(labels) <= COUNTED_CLASSES else max(6.5, 9 - len(labels) / 25)
    few = sum(map(len, names)) <= 40
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=0 if few else 90)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)


def _write_counts(axes: "Axes", metrics: Metrics) -> None:
    for row, counts in enumerate(metrics.confusion):
        for column, count in enumerate(counts):
            if count:
                axes.text(column, row, str(count), ha="center", va="center", fontsize=10)


def _save(figure: "Figure", png: Path) -> str:
    figure.savefig(png, dpi=130, facecolor="white")
    figure.set_layout_engine("none")  # it is laid out: doing that again takes half of the time
    buffer = io.StringIO()
    # None leaves out the metadata block: its date would make each report's bytes differ.
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
