"""Scoring texts with a trained classifier: quick, and with float32's labels."""
# ruff: noqa: TID253 - numbers and tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from include.training.batches import padded_batches
from include.training.data import tokenize
from include.training.fast import Prepared, prepare_to_score
from include.training.fast.hardware import device_type, keep_freed_memory
from include.training.model import Classifier, load_classifier, quieten_transformers

MOST_TOKENS = 2048  # per batch
# What bfloat16 takes the difference of two logits off by, as a share of the best one: 2.4 % at most on a small random
# model, which is the noisiest there is.
ROUNDING = 0.025
PIECE = 4096  # texts that are tokenised at a time: what the tokenizer returns is large


@dataclass(frozen=True)
class Scores:
    """A classifier's answers."""

    labels: list[str]  # the order of the columns
    probabilities: np.ndarray[Any, np.dtype[np.float32]]  # (texts, labels) float32, rows in the texts' order

    @property
    def predicted(self) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[index] for index in self.probabilities.argmax(-1)] if len(self.probabilities) else []


def score(model_uri: str, texts: Sequence[str]) -> Scores:
    """Scores texts on the GPU or, without one, on the CPU.

    Where the machine is quick at it, in bfloat16. Texts whose two best labels are then too close to tell apart are
    scored again in float32, so that labels hang on rounding no more than there.

    Args:
        model_uri: Folder (URI or local) of a model of ours or of any transformers sequence classifier.
        texts: Any number; those longer than the model's maximum are cut as they were in training.

    Raises:
        FileNotFoundError: nothing lies at `model_uri`.
        TrainingError: what lies there is no trained sequence classifier.
    """
    quieten_transformers()
    keep_freed_memory()
    device = device_type()
    classifier = load_classifier(model_uri)
    exact = Prepared(classifier.model, padded_batches(classifier.model))
    quick = prepare_to_score(classifier.model, device)
    rows = _rows(texts, classifier)
    logits = _logits(quick or exact, rows, range(len(rows)), device)
    if quick and len(classifier.labels) > 1:
        best, second = logits.topk(2).values.unbind(-1)
        close = (best - second < ROUNDING * best.abs().clamp(min=2)).nonzero().flatten()
        logits[close] = _logits(exact, rows, close.tolist(), device)
    return Scores(classifier.labels, logits.softmax(-1).numpy())


def _logits(prepared: Prepared, rows: Sequence[Any], chosen: Sequence[int], device: str) -> torch.Tensor:
    """(chosen, labels) float32, in the order of `chosen`."""
    model = prepared.model.to(device)
    place = {row: index for index, row in enumerate(chosen)}
    found = torch.zeros(len(chosen), model.config.num_labels)
    for batch in _batches(rows, chosen):
        inputs = prepared.collator([{"input_ids": rows[row]} for row in batch])
        moved = {name: value.to(device) if torch.is_tensor(value) else value for name, value in inputs.items()}
        with torch.inference_mode():
            found[[place[row] for row in batch]] = model(**moved).logits.float().cpu()
    return found


def _rows(texts: Sequence[str], classifier: Classifier) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Token ids of each text."""
    pieces = (texts[start : start + PIECE] for start in range(0, len(texts), PIECE))
    return [
        np.array(ids, dtype=np.int32)
        for piece in pieces
        for ids in tokenize(piece, classifier.tokenizer, classifier.max_length)
    ]


def _batches(rows: Sequence[Any], chosen: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers in batches of like lengths: little padding for models that need it, and a bounded size for all."""
    batch: list[int] = []
    for index in sorted(chosen, key=lambda index: len(rows[index])):
        if batch and (len(batch) + 1) * len(rows[index]) > MOST_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
