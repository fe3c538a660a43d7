"""Measures scoring: our scorer and transformers' pipeline on one model and the same texts, in their order."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dev.bench import data
from dev.bench.plan import in_turns, ratio
from dev.bench.runs import Launch, run
from dev.bench.training import Bench, Found

OURS, PIPELINE = "ours", "pipeline"
BATCH_SIZES = (1, 8, 16, 32, 64)
NEAR_TIE = 0.1  # difference of two logits


@dataclass(frozen=True)
class Scored:
    """One process's answers."""

    labels: list[str]
    texts_per_second: float
    first: float  # seconds until 100 texts had their labels


def measure(bench: Bench) -> Found:
    """All of scoring: the pipeline's best batch size, throughput, and where both disagree."""
    model = train_plain_classifier(bench)
    texts = data.repeated(list(bench.texts.test["text"]), bench.plan.score_texts)
    few = texts[: bench.plan.score_trial_texts]
    trials = {size: _score(bench, f"{PIPELINE}:{size}", model, few) for size in BATCH_SIZES}
    best = f"{PIPELINE}:{max(trials, key=lambda size: trials[size].texts_per_second)}"
    samples: dict[str, list[float]] = {OURS: [], PIPELINE: [], best: []}
    first: dict[str, list[float]] = {side: [] for side in samples}
    labels = {}
    for side in in_turns((OURS, PIPELINE, best), bench.plan.samples):
        done = _score(bench, side, model, few if side == PIPELINE else texts)
        samples[side].append(done.texts_per_second)
        first[side].append(done.first)
        labels[side] = done.labels
    truth = list(bench.texts.test["label"])[: len(texts)]
    return {
        "score_vs_pipeline": ratio(samples, OURS, PIPELINE),
        "score_vs_pipeline_best_batch": ratio(samples, OURS, best),
        "scoring": {
            "texts": len(texts),
            "trials": {size: done.texts_per_second for size, done in trials.items()},
            "texts_per_second": samples,
            "seconds_to_the_first_100": first,
            "accuracy": {side: accuracy(labels[side][: len(truth)], truth) for side in (OURS, best)},
            "agreement": agreement(bench, model, texts, labels[OURS], labels[best]),
        },
    }


def train_plain_classifier(bench: Bench) -> str:
    """A classifier with BERT's own head, which plain transformers loads too; its folder."""
    workload = bench.workload("model-rows", bench.plan.model_texts)
    ours = replace(bench.ours_plain, recipe=replace(bench.ours_plain.recipe, epochs=bench.plan.model_epochs))
    folder = bench.work / "model"
    launch = ours.launch(workload, folder, folder / "lake")
    bench.tell("training a classifier to score with")
    run(launch, folder)
    return str(ours.result(launch)["model_uri"]).removeprefix("file://")


def agreement(bench: Bench, model: str, texts: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Found:
    """How often both give the same label, row by row, and how near to a tie each other row is."""
    rows = disagreements(ours, theirs)
    leaders = answer(bench.work / "scoring", "leaders", model, [texts[row] for row in rows])["leaders"] if rows else []
    gaps = [logit_gap(*both) for both in leaders]
    return {
        "share": 1 - len(rows) / len(texts),
        "disagreements": len(rows),
        "logit_gaps": [round(gap, 4) for gap in gaps],
        "all_near_ties": all(gap <= NEAR_TIE for gap in gaps),
    }


def disagreements(ours: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """Rows with different labels."""
    return [row for row, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]


def logit_gap(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The difference of two labels' logits, from their probabilities."""
    return math.log(first["score"]) - math.log(second["score"])


def accuracy(labels: Sequence[str], truth: Sequence[str]) -> float:
    """The share of right answers."""
    return 1 - len(disagreements(labels, truth)) / len(truth)


def answer(folder: Path, side: str, model: str, texts: Sequence[str]) -> Found:
    """What `dev.bench.answers` gives in a fresh process; side is ours, leaders, pipeline or pipeline:<batch size>."""
    folder.mkdir(parents=True, exist_ok=True)
    texts_file, answers_file = folder / "texts.json", folder / "answers.json"
    texts_file.write_text(json.dumps(texts))
    program, _, batch_size = side.partition(":")
    arguments = [program, model, str(texts_file), str(answers_file), *([batch_size] if batch_size else [])]
    run(Launch([sys.executable, "-m", "dev.bench.answers", *arguments]), folder)
    answers: Found = json.loads(answers_file.read_text())
    return answers


def _score(bench: Bench, side: str, model: str, texts: Sequence[str]) -> Scored:
    answers = answer(bench.work / "scoring", side, model, texts)
    done = Scored(answers["labels"], round(len(texts) / answers["seconds"], 1), round(answers["first"], 2))
    bench.tell(f"scoring {len(texts)} texts, {side}: {done.texts_per_second:.0f} texts/s")
    return done
