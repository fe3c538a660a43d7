"""Scoring texts with a trained classifier: quick, and with float32's labels."""
# ruff: noqa: TID253 - numbers and tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from include.training.data import tokenize
from include.training.hardware import bfloat16_is_quick, device_type
from include.training.model import Classifier, load_classifier, quieten_transformers
from include.training.packing import Collator, collator_for, padded_batches

MOST_TOKENS = 4096  # per batch
# What bfloat16 may take the difference of two logits off by, as a share of the best one; seen on banking77: 0.8 %.
ROUNDING = 0.015
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


@torch.inference_mode()
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
    device = device_type()
    classifier = load_classifier(model_uri)
    packed, padded = collator_for(classifier.model, device), padded_batches(classifier.model)
    classifier.model.to(device)
    rows = _rows(texts, classifier)
    logits = torch.zeros(len(rows), len(classifier.labels))
    everything, quick = range(len(rows)), bfloat16_is_quick(device)
    with torch.autocast(device, torch.bfloat16, enabled=quick):
        for batch in _batches(rows, everything):
            logits[batch] = _answers(classifier.model, packed, rows, batch)
    if quick and len(classifier.labels) > 1:
        best, second = logits.topk(2).values.unbind(-1)
        close = best - second < ROUNDING * best.abs().clamp(min=2)
        for batch in _batches(rows, close.nonzero().flatten().tolist()):
            logits[batch] = _answers(classifier.model, padded, rows, batch)
    return Scores(classifier.labels, logits.softmax(-1).numpy())


def _rows(texts: Sequence[str], classifier: Classifier) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Token ids of each text."""
    pieces = (texts[start : start + PIECE] for start in range(0, len(texts), PIECE))
    return [
        np.array(ids, dtype=np.int32)
        for piece in pieces
        for ids in tokenize(piece, classifier.tokenizer, classifier.max_length)
    ]


def _answers(model: Any, collate: Collator, rows: Sequence[Any], batch: list[int]) -> torch.Tensor:
    inputs = collate([{"input_ids": rows[index]} for index in batch])
    on_device = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in inputs.items()}
    logits: torch.Tensor = model(**on_device).logits
    return logits.float().cpu()


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
