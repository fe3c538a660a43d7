"""Trying a model out before it is trusted to answer in another way than its authors wrote."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from include.training.batches import Collator, Row, padded_batches
from include.training.fast.hardware import bfloat16_is_quick
from include.training.layout import position_limit

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the largest number; rounding is a hundred times smaller, texts that see each other larger
LENGTHS = (5, 2, 7, 96)  # tokens: two short ones beside each other, and one that no kernel for short texts takes


@dataclass(frozen=True)
class Probe:
    """What a model makes of the probe texts without dropout.

    Args:
        logits: (texts, labels) float32.
        gradients: Of the word vectors, to which those of every layer contribute.
    """

    logits: torch.Tensor
    gradients: torch.Tensor

    def apart(self, other: "Probe") -> float:
        """How far two lie apart, as a share of the largest number."""
        return max(_apart(self.logits, other.logits), _apart(self.gradients, other.gradients))


def probe(model: Any, collate: Collator) -> Probe:
    """Tries a model, on the CPU, on some texts in one kind of batches."""
    with _mode(model, training=False):
        return Probe(*_answers(model, collate(probe_rows(model))))


def require_numbers_in_training(model: Any, collate: Collator) -> None:
    """Tries one more step, with dropout.

    Raises:
        ValueError: a gradient is no number.
    """
    with _mode(model, training=True), torch.random.fork_rng(devices=()):
        _, trained = _answers(model, collate(probe_rows(model)))
    if not trained.isfinite().all():
        raise ValueError("a step of training gives gradients that are no numbers")


def computes_in_bfloat16(model: Any, device: str) -> bool:
    """Whether a type of device is quick at bfloat16, and the model, still on the CPU, gets through a step in it.

    Some do not, as transformers has them: DeBERTa's first edition has a constant that is too large for it.
    """
    if not bfloat16_is_quick(device):
        return False
    try:
        with torch.autocast("cpu", torch.bfloat16):
            gradients = probe(model, padded_batches(model)).gradients
    except (RuntimeError, ValueError, TypeError) as error:
        logger.info("float32, because %s does not run in bfloat16: %s", type(model).__name__, error)
        return False
    return bool(gradients.isfinite().all())


def _answers(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the word vectors' gradient, to which that of every layer contributes."""
    with torch.enable_grad():
        logits = model(**batch).logits.float()
        weight = model.get_input_embeddings().weight
        (gradient,) = torch.autograd.grad(logits.square().sum(), weight)
    return logits.detach(), gradient


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def probe_rows(model: Any) -> list[Row]:
    """Token ids from the middle of the vocabulary, where no special tokens lie; the words repeat."""
    middle, limit = model.get_input_embeddings().num_embeddings // 2, position_limit(model)
    return [{"input_ids": [max(middle - place % 8, 0) for place in range(min(length, limit))]} for length in LENGTHS]


@contextmanager
def _mode(model: Any, *, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
