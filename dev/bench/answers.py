"""Scores texts in a process of its own.

``python -m dev.bench.answers ours|pipeline|leaders model texts.json answers.json [batch size]``

What is timed is the whole call, loading the model included and imports excluded, on both sides; and how long it took
until the first texts, with nothing known of the others, had their labels.
"""
# Each side imports its own: what a project's package sets up for torch must neither help nor harm the other.

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_LENGTH = 128
FIRST = 100  # texts


def ours(model: str, texts: list[str]) -> dict[str, Any]:
    """include.training.scoring."""
    from include.training.scoring import Scorer

    began = time.perf_counter()
    scorer = Scorer(model)

    def labels(some: list[str]) -> list[str]:
        best = scorer.probabilities(scorer.tokenize(some)).argmax(-1)
        return [scorer.labels[index] for index in best]

    return _in_two_calls(labels, texts, began)


def pipeline(model: str, texts: list[str], batch_size: int | None) -> dict[str, Any]:
    """transformers' pipeline, at its own batch size (1) or another; too long texts are cut as they were in training."""
    from transformers import TextClassificationPipeline, pipeline  # noqa: F401 - the class, so that importing is over

    batching = {} if batch_size is None else {"batch_size": batch_size}
    began = time.perf_counter()
    classify = pipeline("text-classification", model=model)

    def labels(some: list[str]) -> list[str]:
        return [answer["label"] for answer in classify(some, truncation=True, max_length=MAX_LENGTH, **batching)]

    return _in_two_calls(labels, texts, began)


def _in_two_calls(labels: Callable[[list[str]], list[str]], texts: list[str], began: float) -> dict[str, Any]:
    first = labels(texts[:FIRST])
    took = time.perf_counter() - began
    rest = labels(texts[FIRST:]) if len(texts) > FIRST else []
    return {"labels": first + rest, "first": took, "seconds": time.perf_counter() - began}


def leaders(model: str, texts: list[str]) -> dict[str, Any]:
    """The two most probable labels of each text with their probabilities, as the pipeline sees them."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=model, top_k=2)
    return {"leaders": classify(texts, truncation=True, max_length=MAX_LENGTH)}


def main(side: str, model: str, texts_file: str, answers_file: str, batch_size: str = "") -> None:
    """Reads the texts, writes the answers."""
    texts: list[str] = json.loads(Path(texts_file).read_text())
    if side == "ours":
        answers = ours(model, texts)
    elif side == "leaders":
        answers = leaders(model, texts)
    else:
        answers = pipeline(model, texts, int(batch_size) if batch_size else None)
    Path(answers_file).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
