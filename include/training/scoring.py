"""Scoring texts with a trained classifier: quick, and with float32's labels."""
# ruff: noqa: TID253 - numbers and tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from include.training.data import tokenize
from include.training.frozen import frozen
from include.training.hardware import device_type, keep_freed_memory
from include.training.model import load_classifier, quieten_transformers
from include.training.packing import PackedBatches, collator_for, computes_in_bfloat16, encoder_of

MOST_TOKENS = 2048  # per batch
# What bfloat16 takes the difference of two logits off by, as a share of the best one: on banking77 0.3 % or less for
# 99 in 100 texts.
ROUNDING = 0.005
Row = NDArray[np.int32]
PIECE = 4096  # texts that are tokenised at a time: what the tokenizer returns is large


@dataclass(frozen=True)
class Scores:
    """A classifier's answers."""

    labels: list[str]  # the order of the columns
    probabilities: NDArray[np.float32]  # (texts, labels) float32, rows in the texts' order

    @property
    def predicted(self) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[index] for index in self.probabilities.argmax(-1)] if len(self.probabilities) else []


class Scorer:
    """A trained classifier that is loaded once and answers many times, on the GPU or, without one, on the CPU.

    Where the machine is quick at it, in bfloat16. Texts whose two best labels are then too close to tell apart are
    scored again in float32, so that labels hang on rounding no more than there. Not to be used by two threads at once.

    Args:
        model_uri: Folder (URI or local) of a model of ours or of any transformers sequence classifier.

    Raises:
        FileNotFoundError: nothing lies at `model_uri`.
        TrainingError: what lies there is no trained sequence classifier.
    """

    def __init__(self, model_uri: str) -> None:
        quieten_transformers()
        keep_freed_memory()
        self._device = device_type()
        self._classifier = load_classifier(model_uri)
        model = self._classifier.model
        self._collate = collator_for(model, self._device)
        self._quick = computes_in_bfloat16(model, self._device)
        packed = isinstance(self._collate, PackedBatches)
        model.to(self._device)
        if packed:  # else the model's layout may be any, and the head's too
            _keep_head_precise(model, self._device)
        self._frozen = partial(frozen, model, packed and self._quick)

    @property
    def labels(self) -> list[str]:
        """In the order of the probabilities' columns."""
        return self._classifier.labels

    @property
    def max_length(self) -> int:
        """Tokens of the longest text; longer ones are cut."""
        return self._classifier.max_length

    def tokenize(self, texts: Sequence[str], max_length: int = 0) -> list[Row]:
        """Token ids of each text, cut at the model's maximum, as in training, or at another."""
        pieces = (texts[start : start + PIECE] for start in range(0, len(texts), PIECE))
        return [
            np.array(ids, dtype=np.int32)
            for piece in pieces
            for ids in tokenize(piece, self._classifier.tokenizer, max_length or self.max_length)
        ]

    @torch.inference_mode()
    def probabilities(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(texts, labels) float32 for token ids, in their order."""
        logits = torch.zeros(len(rows), len(self.labels))
        with torch.autocast(self._device, torch.bfloat16, enabled=self._quick), self._frozen():
            for batch in _batches(rows, range(len(rows))):
                logits[batch] = self._answers(rows, batch)
        if self._quick and len(self.labels) > 1:
            best, second = logits.topk(2).values.unbind(-1)
            close = best - second < ROUNDING * best.abs().clamp(min=2)
            for batch in _batches(rows, close.nonzero().flatten().tolist()):
                logits[batch] = self._answers(rows, batch)
        return np.asarray(logits.softmax(-1).numpy(), dtype=np.float32)

    def _answers(self, rows: Sequence[Row], batch: list[int]) -> torch.Tensor:
        model = self._classifier.model
        inputs = self._collate([{"input_ids": rows[index]} for index in batch])
        on_device = {
            name: value.to(model.device) if torch.is_tensor(value) else value for name, value in inputs.items()
        }
        logits: torch.Tensor = model(**on_device).logits
        return logits.float().cpu()


def score(model_uri: str, texts: Sequence[str]) -> Scores:
    """Scores any number of texts with the model at a URI; raises what `Scorer` does."""
    scorer = Scorer(model_uri)
    return Scores(scorer.labels, scorer.probabilities(scorer.tokenize(texts)))


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
