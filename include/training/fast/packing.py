"""Batches without padding, for the GPU: texts laid end to end.

Packed, a batch is one row of tokens. Attention stays inside each text (``cu_seq_lens_q`` holds the bounds, the name
that transformers gives them), positions restart with each text, and the head sees each text's first token. Nothing is
computed for padding, which on short texts is most of a padded batch.

Attention of packed batches has no dropout: varlen_attn does not take it.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from include.training.batches import Batch, Collator, Row, labels_of, padded_batches
from include.training.fast.probing import TOLERANCE, probe, require_numbers_in_training
from include.training.layout import encoder_of, first_position, pools_itself

logger = logging.getLogger(__name__)

ATTENTION = "packed"


@dataclass(frozen=True)
class PackedBatches:
    """Collates rows into one row of tokens.

    Args:
        first_position: The position id of a text's first token: 0 for BERT, padding_idx + 1 for RoBERTa.
    """

    first_position: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """labels (texts), input_ids and position_ids (1, tokens), cu_seq_lens_q (texts + 1), and the longest length."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        bounds = np.concatenate([[0], lengths.cumsum()])
        positions = self.first_position + np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
        tokens = np.concatenate([row["input_ids"] for row in rows]).astype(np.int64)
        return labels_of(rows) | {
            "input_ids": torch.from_numpy(tokens)[None],
            "position_ids": torch.from_numpy(positions)[None],
            "cu_seq_lens_q": torch.from_numpy(bounds.astype(np.int32)),
            "max_length_q": int(lengths.max()),
        }


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each text of a packed batch; padded batches get transformers' own SDPA.

    Args:
        module: The attention layer that asks.
        query: (1, heads, tokens, head size), as are `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: Of a padded batch.
        scaling: Of the scores.
        cu_seq_lens_q: Bounds of the texts, (texts + 1); None for a padded batch.
        max_length_q: Tokens of the longest text.
        kwargs: What else transformers hands to every attention.

    Returns:
        (1, tokens, heads, head size), and no weights.
    """
    if cu_seq_lens_q is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output
    if query.is_cuda:
        return _attention_on_gpu(query, key, value, cu_seq_lens_q, max_length_q, scaling), None
    return _attention_on_cpu(query, key, value, cu_seq_lens_q, scaling), None


def _attention_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Text by text, which is slow: for the probe, that compares packed batches with padded ones on the CPU."""
    found = []
    for start, end in itertools.pairwise(bounds.tolist()):
        q, k, v = (heads[:, :, start:end] for heads in (query, key, value))
        found.append(scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2))
    return torch.cat(found, 1)


def _attention_on_gpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, longest: int, scale: float | None
) -> torch.Tensor:
    """All is (1, heads, tokens, head size), the result (1, tokens, heads, head size)."""
    texts, tokens = len(bounds) - 1, query.shape[2]
    q, k, v = (heads[0].transpose(0, 1) for heads in (query, key, value))
    if tokens == texts * longest:  # texts cut to one length: a rectangle, for which cuDNN has the quicker kernel
        q, k, v = (heads.view(texts, longest, *heads.shape[1:]).transpose(1, 2) for heads in (q, k, v))
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            return scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1).unsqueeze(0)
    attended = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scale)
    assert isinstance(attended, torch.Tensor)
    return attended.unsqueeze(0)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def packed_batches(model: Any) -> Collator | None:
    """Prepares a sequence classifier for packed batches on the GPU if it is capable of them.

    Capable means: a known encoder layout, and equal logits and gradients for packed and padded probe texts. The
    weights, their names and the saved config stay as they are.

    Args:
        model: A transformers sequence classifier, still on the CPU.

    Returns:
        The collator, or None for a model that needs padded batches.
    """
    reason = _enable(model)
    if reason:
        logger.info("padded batches: %s", reason)
        return None
    logger.info("padding-free batches")
    return PackedBatches(first_position(model))


def _enable(model: Any) -> str:
    """Teaches a model packed batches; the reason why it stays as it was, or nothing."""
    encoder = encoder_of(model)
    if encoder is None:
        return f"{type(model).__name__} has no encoder layout that is known here"
    before = model.config._attn_implementation
    handle: RemovableHandle | None = None
    try:
        if not pools_itself(model):
            handle = _read_first_tokens(encoder)
        model.set_attn_implementation(ATTENTION)
        if not _uses(model, ATTENTION):
            raise ValueError("its attention is its own, not one of transformers' AttentionInterface")
        packed = PackedBatches(first_position(model))
        apart = probe(model, packed).apart(probe(model, padded_batches(model)))
        require_numbers_in_training(model, packed)
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, StopIteration) as error:
        reason = f"{type(model).__name__} does not run packed: {type(error).__name__} {error}"
    else:
        if apart <= TOLERANCE:
            return ""
        reason = f"packed logits or gradients of {type(model).__name__} differ by {100 * apart:.1g} %"
    if handle is not None:
        handle.remove()
    for module in model.modules():
        module.__dict__.pop("forward", None)  # then it has that of its class again
    model.set_attn_implementation(before)
    return reason


def _uses(model: Any, attention: str) -> bool:
    """Whether the encoder asks the AttentionInterface; some families have attention of their own."""
    base = model.base_model.encoder if pools_itself(model) else model.base_model
    return bool(base.config._attn_implementation == attention)


def _read_first_tokens(encoder: Any) -> RemovableHandle:
    """Hands the model's head each text's first token, and computes no more of the last layer than that takes."""
    layers = getattr(encoder, "layer", None)
    attention = getattr(layers[-1], "attention", None) if layers else None
    # In BERT's layout all that follows in the layer looks at one token at a time.
    if attention is not None and hasattr(attention, "self") and hasattr(attention, "output"):
        attention.forward = partial(_first_tokens_only, attention, attention.forward)
    handle: RemovableHandle = encoder.register_forward_hook(_texts_of_one_token, with_kwargs=True)
    return handle


def _first_tokens_only(attention: Any, usual: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """(1, texts, hidden) of a packed batch (1, tokens, hidden)."""
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None:
        return usual(hidden_states, *args, **kwargs)
    attended, weights = attention.self(hidden_states, *args, **kwargs)
    firsts = bounds[:-1].long()
    return attention.output(attended[:, firsts], hidden_states[:, firsts]), weights


def _texts_of_one_token(encoder: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Makes a packed output look like texts of one token each: (texts, 1, hidden)."""
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is not None:
        hidden = output.last_hidden_state
        firsts = hidden if hidden.shape[1] == len(bounds) - 1 else hidden[:, bounds[:-1].long()]
        output.last_hidden_state = firsts.transpose(0, 1)
    return output
