"""A model version's card: README.md with the Hugging Face header, written from what the run knows of itself."""

import re
from pathlib import Path
from typing import Any

from include import lake
from include.evaluation.evaluate import Evaluation
from include.evaluation.metrics import ClassScore, most_confused
from include.training.job import Job, Result

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FEW_ROWS = 10


def model_card(
    job: Job, result: Result, evaluation: Evaluation, version: str = "", *, mean_pooled: bool = False
) -> str:
    """The card as Markdown. ``version`` is the registered one; without it the card speaks of the model by its job.

    ``mean_pooled``: the model's class is none of transformers' own, and so is how it is loaded.
    """
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, in which cell() does the escaping
        keep_trailing_newline=True,
    )
    templates.filters["cell"] = cell
    header = yaml.safe_dump(_header(job, evaluation), sort_keys=False, allow_unicode=True)
    classes = evaluation.challenger.metrics.classes
    return templates.get_template("model_card.md.jinja").render(
        header=header,
        title=f"{job.model_name} version {version}" if version else f"{job.model_name}, job {job.job_id}",
        uri=lake.model(job.model_name, version).rstrip("/") if version else result.model_uri,
        mean_pooled=mean_pooled,
        job=job,
        result=result,
        evaluation=evaluation,
        metrics=evaluation.challenger.metrics,
        context=evaluation.context,
        interval=accuracy_interval(evaluation),
        pairs=most_confused(evaluation.challenger.metrics, 3),
        weakest=[score for score in sorted(classes, key=lambda score: score.f1)[:3] if round(score.f1, 3) < 1],
        thin=_thin(classes),
        ungolden=sorted(set(result.labels) - {score.label for score in classes}),
    )


def accuracy_interval(evaluation: Evaluation) -> tuple[float, float]:
    """The 95 % Wilson interval of the accuracy on the golden set."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]  # scipy ships no types

    metrics = evaluation.challenger.metrics
    interval = binomtest(round(metrics.accuracy * metrics.rows), metrics.rows).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def cell(value: str) -> str:
    """A text that can stand in a Markdown table."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(value.split()))


def _thin(classes: list[ClassScore]) -> list[str]:
    return [score.label for score in classes if score.support < FEW_ROWS]


def _header(job: Job, evaluation: Evaluation) -> dict[str, Any]:
    metrics = evaluation.challenger.metrics
    results = [
        {"type": "accuracy", "value": round(metrics.accuracy, 4)},
        {"type": "f1", "name": "macro-F1", "value": round(metrics.macro_f1, 4)},
    ]
    # A path or s3:// address means nothing to others: only a hub id may stand as base_model.
    base = {"base_model": job.base_model} if HUB_ID.fullmatch(job.base_model) else {}
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        **base,
        "tags": ["text-classification", "bert"],
        "metrics": ["accuracy", "f1"],
        "model-index": [
            {
                "name": job.model_name,
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {
                            "name": f"golden set of {job.model_name}",
                            "type": "private",
                            "revision": evaluation.golden_hash[:16],
                        },
                        "metrics": results,
                    }
                ],
            }
        ],
    }
