"""The last layer, computed for each text's first token alone where the head reads no other: the [CLS] of BERT.

Of a padded batch; a packed one has its own way there. Queries, keys and values are those of all tokens still, and
answers and gradients are the same. What follows in the layer, three quarters of its products, is for nobody else: an
eighth of the products of a model of six layers, a sixteenth of BERT-base's.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
from typing import Any

import torch

from include.training.batches import padded_batches
from include.training.fast.probing import TOLERANCE, probe
from include.training.layout import encoder_of, pools_itself

logger = logging.getLogger(__name__)


def compute_first_tokens_only(model: Any) -> None:
    """Saves a classifier what of its last layer nobody reads, if it has BERT's layout and answers the same then.

    Args:
        model: A transformers sequence classifier, on the CPU. Weights, their names and the saved config stay.
    """
    layers = getattr(encoder_of(model), "layer", None)
    # In BERT's layout all that follows in the layer looks at one token at a time.
    after_attention = getattr(getattr(layers[-1], "attention", None), "output", None) if layers else None
    if after_attention is None or pools_itself(model) or _first_tokens in after_attention._forward_pre_hooks.values():
        return
    before = probe(model, padded_batches(model))
    hook = after_attention.register_forward_pre_hook(_first_tokens)
    try:
        apart = probe(model, padded_batches(model)).apart(before)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        logger.debug("%s reads more than its first token: %s", type(model).__name__, error)
        apart = float("inf")
    if not apart <= TOLERANCE:
        hook.remove()


def _first_tokens(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """(texts, tokens, hidden) to (texts, 1, hidden)."""
    return tuple(one[:, :1] for one in inputs)
