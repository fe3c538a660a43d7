"""Scoring texts with a trained classifier: the same answer in any order and on any machine."""
# ruff: noqa: TID253 - numbers and tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from include.training.data import tokenize
from include.training.model import load_classifier, quieten_transformers
from include.training.packing import collator_for

MOST_TOKENS = 4096  # per batch
MOST_TEXTS = 64


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
    """Scores texts in float32 on the CPU.

    Args:
        model_uri: Folder (URI or local) of a model of ours or of any transformers sequence classifier.
        texts: Any number; those longer than the model's maximum are cut as they were in training.

    Raises:
        FileNotFoundError: nothing lies at `model_uri`.
        TrainingError: what lies there is no trained sequence classifier.
    """
    quieten_transformers()
    classifier = load_classifier(model_uri)
    collate = collator_for(classifier.model)
    rows = tokenize(texts, classifier.tokenizer, classifier.max_length)
    probabilities = np.zeros((len(rows), len(classifier.labels)), dtype=np.float32)
    for batch in _batches(rows):
        logits = classifier.model(**collate([{"input_ids": rows[index]} for index in batch])).logits
        probabilities[batch] = logits.softmax(-1).numpy()
    return Scores(classifier.labels, probabilities)


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Row numbers in batches of like lengths: little padding for models that need it, and a bounded size for all."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if batch and (len(batch) == MOST_TEXTS or (len(batch) + 1) * len(rows[index]) > MOST_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
