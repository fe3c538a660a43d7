"""Dropout by random bytes: torch draws a mask on the CPU number by number, on one thread.

Eight bytes come of one draw here. The probability is rounded to 1/256: 0.1 is 26/256. torch's seed decides, as before.
Attention draws its masks by itself, so that it is plain attention with this dropout, for models that attend so.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from include.training.batches import padded_batches
from include.training.fast.probing import TOLERANCE, probe

logger = logging.getLogger(__name__)

ATTENTION = "plain_with_byte_dropout"
CHANCES = 256


class ByteDropout(torch.nn.Dropout):
    """Drops as torch's own does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Of any shape and precision, and so is the result."""
        return drop(input, self.p) if self.training and self.p else input


def drop(values: torch.Tensor, p: float) -> torch.Tensor:
    """Values times 0, with a probability p below 1, or else the factor that keeps their mean."""
    dropped = min(round(CHANCES * p), CHANCES - 1)
    count = values.numel()
    drawn = torch.empty(count // 8 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:count]
    # In place and without bool, whose comparisons and conversions take torch seven times as long and more.
    kept = drawn.ge_(dropped).to(values.dtype).mul_(CHANCES / (CHANCES - dropped))
    return values * kept.view(values.shape)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention: (texts, tokens, heads, head size) of (texts, heads, tokens, head size), and its weights."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    weights = torch.softmax(scores if attention_mask is None else scores + attention_mask, -1)
    weights = drop(weights, dropout) if dropout else weights
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)


def drop_by_bytes(model: Any) -> None:
    """Has a classifier drop so while it trains on the CPU; weights, their names and the saved config stay.

    Args:
        model: A transformers sequence classifier, on the CPU.
    """
    for module in model.modules():
        if type(module) is torch.nn.Dropout and module.p < 1:
            module.__class__ = ByteDropout
    model.set_attn_implementation("eager")
    before = probe(model, padded_batches(model))
    try:
        model.set_attn_implementation(ATTENTION)
        apart = probe(model, padded_batches(model)).apart(before)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        logger.debug("%s attends in its own way: %s", type(model).__name__, error)
        apart = float("inf")
    if not apart <= TOLERANCE:
        model.set_attn_implementation("eager")
