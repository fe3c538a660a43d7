"""Scoring texts with a trained classifier: quick, and with float32's labels."""
# ruff: noqa: TID253 - numbers and tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from include.training.data import tokenize
from include.training.frozen import frozen
from include.training.hardware import device_type, keep_freed_memory
from include.training.model import Classifier, load_classifier, quieten_transformers
from include.training.packing import Collator, PackedBatches, collator_for, computes_in_bfloat16, encoder_of

MOST_TOKENS = 2048  # per batch
# What bfloat16 takes the difference of two logits off by, as a share of the best one: on banking77 0.3 % or less for
# 99 in 100 texts.
ROUNDING = 0.005
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
    keep_freed_memory()
    device = device_type()
    classifier = load_classifier(model_uri)
    collate = collator_for(classifier.model, device)
    quick, packed = computes_in_bfloat16(classifier.model, device), isinstance(collate, PackedBatches)
    classifier.model.to(device)
    rows = _rows(texts, classifier)
    logits = torch.zeros(len(rows), len(classifier.labels))
    everything = range(len(rows))
    if packed:  # else the model's layout may be any, and the head's too
        _keep_head_precise(classifier.model, device)
    with torch.autocast(device, torch.bfloat16, enabled=quick), frozen(classifier.model, packed and quick):
        for batch in _batches(rows, everything):
            logits[batch] = _answers(classifier.model, collate, rows, batch)
    if quick and len(classifier.labels) > 1:
        best, second = logits.topk(2).values.unbind(-1)
        close = best - second < ROUNDING * best.abs().clamp(min=2)
        for batch in _batches(rows, close.nonzero().flatten().tolist()):
            logits[batch] = _answers(classifier.model, collate, rows, batch)
    return Scores(classifier.labels, logits.softmax(-1).numpy())


def _keep_head_precise(model: Any, device: str) -> None:
    """Lets a model compute in float32 what follows its encoder: a small part, after which bfloat16 sees ties."""

    def precise(usual: Any, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, enabled=False):
            answer: torch.Tensor = usual(*(one.float() for one in inputs))
            return answer

    encoder = encoder_of(model)
    head = [module for module in model.children() if encoder not in set(module.modules())]
    for module in filter(None, [*head, getattr(model.base_model, "pooler", None)]):
        module.forward = partial(precise, module.forward)


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
