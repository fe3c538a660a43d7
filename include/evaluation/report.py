"""The evaluation as one HTML file that needs nothing else, and its pictures as PNG and SVG."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.evaluation import charts, words
from include.evaluation.evaluate import Evaluation, Part
from include.evaluation.metrics import most_confused

if TYPE_CHECKING:
    from jinja2 import Environment

PICTURES = ("learning_curve", "confusion_matrix", "intervals")
SHOWN_FLIPS = 25
SHOWN_PAIRS = 20
# Up to here the matrix itself is read at a glance; with more classes the page leads with the most confused pairs.
FEW_CLASSES = 12


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Writes report.html and its pictures, those for which there is something to draw; returns the HTML's path.

    Texts and labels are escaped; the file makes no request to anywhere. ``folder`` is made if it is not there; pictures
    that lie in it as SVG are not drawn again: drawing takes seconds, and a report is written anew when its version has
    a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context, decision = evaluation.context, evaluation.decision
    margin = evaluation.thresholds.max_accuracy_drop
    draw: dict[str, Callable[[Path], str]] = {
        "confusion_matrix": lambda png: charts.confusion_matrix(evaluation.challenger.metrics, png)
    }
    if context.history:
        draw["learning_curve"] = lambda png: charts.learning_curve(context.history, context.best_epoch, png)
    if decision.comparisons:
        draw["intervals"] = lambda png: charts.intervals(decision.comparisons, margin, png)
    drawn = dict.fromkeys(PICTURES, "") | {name: _picture(folder / f"{name}.svg", how) for name, how in draw.items()}
    page = environment().get_template("report.html.jinja").render(_values(evaluation), **drawn)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _picture(svg: Path, draw: Callable[[Path], str]) -> str:
    if not svg.exists():
        svg.write_text(draw(svg.with_suffix(".png")), encoding="utf-8")
    return svg.read_text(encoding="utf-8")


def _values(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "evaluation": evaluation,
        "verdict": evaluation.verdict.replace("_", " ").capitalize(),
        "reason": words.without_outcome(evaluation.reason),
        "context": evaluation.context,
        "challenger": evaluation.challenger.metrics,
        "champion": evaluation.champion.metrics if evaluation.champion else None,
        "classes": _class_rows(evaluation),
        "parts": _parts(evaluation),
        "powers": [
            words.power(comparison, evaluation.thresholds.max_accuracy_drop)
            for comparison in evaluation.decision.comparisons
        ],
        "pairs": most_confused(evaluation.challenger.metrics, SHOWN_PAIRS),
        "few_classes": len(evaluation.challenger.metrics.labels) <= FEW_CLASSES,
        "shown_flips": SHOWN_FLIPS,
        "ids": _ids(evaluation),
    }


def _parts(evaluation: Evaluation) -> list[tuple[str, Part]]:
    """The rows that judge and those that came with this upload, where there are some of the latter."""
    if evaluation.established is None or evaluation.new is None or not evaluation.new.rows:
        return []
    return [("Established rows", evaluation.established), ("Rows of this upload", evaluation.new)]


def _class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row per golden class, the weakest first, with the champion's scores beside the challenger's."""
    before = {score.label: score for score in evaluation.champion.metrics.classes} if evaluation.champion else {}
    new = evaluation.new_by_class
    return [
        {
            "score": score,
            "before": before.get(score.label),
            "gated": score.support - new.get(score.label, 0) >= evaluation.thresholds.min_class_rows,
            "new": new.get(score.label, 0),
        }
        for score in sorted(evaluation.challenger.metrics.classes, key=lambda score: (score.f1, score.label))
    ]


def _ids(evaluation: Evaluation) -> dict[str, str]:
    context = evaluation.context
    ids = {
        "Model": context.model_name,
        "Challenger": _version(context.challenger_version, evaluation.challenger.uri),
        "Champion": _version(context.champion_version, evaluation.champion.uri) if evaluation.champion else "none yet",
        "Anchor": _version(context.anchor_version, evaluation.anchor.uri) if evaluation.anchor else "",
        "Base model": context.base_model,
        "Dataset": context.dataset_id,
        "Job": context.job_id,
        "MLflow run": context.mlflow_run_id,
        "DAG run": f"{context.dag_id} {context.dag_run_id}".strip(),
        "Golden set": f"{evaluation.golden_rows} rows, {evaluation.golden_hash}",
    }
    return {name: value for name, value in ids.items() if value}


def _version(version: str, uri: str) -> str:
    return f"v{version} · {uri}" if version else uri


def environment() -> "Environment":
    """The environment of all reports' templates: each value is escaped, and one that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
