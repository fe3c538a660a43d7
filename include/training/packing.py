"""Batches of texts: laid end to end without padding where the model can, padded where it cannot.

Packed, a batch is one row of tokens. Attention stays inside each text (``cu_seq_lens_q`` holds the bounds, the name
that transformers gives them), positions restart with each text, and the head sees each text's first token. Nothing is
computed for padding, which on short texts is most of a padded batch.

Attention of packed batches has no dropout: varlen_attn and, for long texts, torch's kernel for the CPU do not take it.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from include.training.bert_layer import quicken
from include.training.hardware import bfloat16_is_quick
from include.training.rectangles import attention

logger = logging.getLogger(__name__)

ATTENTION = "packed"
CPU_MULTIPLE = 32
PROBE_TOLERANCE = 1e-3  # of the largest logit; rounding is a hundred times smaller, texts that see each other larger

Row = Mapping[str, Any]  # input_ids: whole numbers, in a list or an array; labels: int where known
Batch = dict[str, Any]  # tensors, but for max_length_q
Collator = Callable[[Sequence[Row]], Batch]


@dataclass(frozen=True)
class PackedBatches:
    """Collates rows into one row of tokens.

    Args:
        first_position: The position id of a text's first token: 0 for BERT, padding_idx + 1 for RoBERTa.
        multiple: The tokens are filled up to a multiple of it with some that belong to no text. The CPU's matrix
            products have to be prepared for each new size, which on short texts costs more than the fillers.
    """

    first_position: int
    multiple: int = 1

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """labels (texts), input_ids and position_ids (1, tokens), cu_seq_lens_q (texts + 1), and the longest length."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        bounds = np.concatenate([[0], lengths.cumsum()])
        positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
        tokens, fillers = np.concatenate([row["input_ids"] for row in rows]), -bounds[-1] % self.multiple
        return _labels(rows) | {
            "input_ids": torch.from_numpy(np.pad(tokens.astype(np.int64), (0, fillers), mode="edge"))[None],
            "position_ids": torch.from_numpy(self.first_position + np.pad(positions, (0, fillers)))[None],
            "cu_seq_lens_q": torch.from_numpy(bounds.astype(np.int32)),
            "max_length_q": int(lengths.max()),
        }


@dataclass(frozen=True)
class PaddedBatches:
    """Collates rows into a rectangle as wide as the longest of them."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """labels (texts), input_ids and attention_mask (texts, longest)."""
        texts = [torch.as_tensor(row["input_ids"], dtype=torch.int64) for row in rows]
        input_ids = pad_sequence(texts, batch_first=True, padding_value=self.pad_token_id)
        lengths = torch.tensor([len(text) for text in texts])
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        return _labels(rows) | {"input_ids": input_ids, "attention_mask": mask}


def _labels(rows: Sequence[Row]) -> Batch:
    """They come first in a batch: Trainer takes the size of the first tensor for the number of texts."""
    return {"labels": torch.tensor([row["labels"] for row in rows])} if rows and "labels" in rows[0] else {}


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
    projections = torch.stack([heads[0].transpose(0, 1) for heads in (query, key, value)], 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attention(projections, cu_seq_lens_q, scale).unsqueeze(0), None


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


def collator_for(model: Any, device: str = "cpu") -> Collator:
    """Prepares a sequence classifier for packed batches if it is capable of them.

    Capable means: a known encoder layout, and equal logits for packed and padded probe texts. The weights, their names
    and the saved config stay as they are.

    Args:
        model: A transformers sequence classifier, still on the CPU.
        device: The type of device that it is to run on: cpu or cuda.

    Returns:
        The collator for its batches, packed or padded.
    """
    padded = padded_batches(model)
    quick = device == "cpu" or bfloat16_is_quick(device)
    reason = _enable(model, padded, device) if quick else "this GPU has no bfloat16"
    if reason:
        logger.info("padded batches: %s", reason)
        return padded
    logger.info("padding-free batches")
    return PackedBatches(first_position(model), CPU_MULTIPLE if device == "cpu" else 1)


def padded_batches(model: Any) -> PaddedBatches:
    """The collator that every model takes."""
    return PaddedBatches(model.get_input_embeddings().padding_idx or 0)


def _enable(model: Any, padded: PaddedBatches, device: str) -> str:
    """Teaches a model packed batches; the reason why it stays as it was, or nothing."""
    encoder = encoder_of(model)
    if encoder is None:
        return f"{type(model).__name__} has no encoder layout that is known here"
    before = model.config._attn_implementation
    handle: RemovableHandle | None = None
    try:
        if not _pools_itself(model):
            handle = _read_first_tokens(encoder)
        if device == "cpu":
            quicken(model)
        model.set_attn_implementation(ATTENTION)
        difference = _probe(model, padded)
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, StopIteration) as error:
        reason = f"{type(model).__name__} does not run packed: {type(error).__name__} {error}"
    else:
        if difference <= PROBE_TOLERANCE:
            return ""
        reason = f"packed logits of {type(model).__name__} differ by {100 * difference:.1g} %"
    if handle is not None:
        handle.remove()
    for module in model.modules():
        module.__dict__.pop("forward", None)  # then it has that of its class again
    model.set_attn_implementation(before)
    return reason


def _uses(model: Any, attention: str) -> bool:
    """Whether the encoder asks the AttentionInterface; some families have attention of their own."""
    base = model.base_model.encoder if _pools_itself(model) else model.base_model
    return bool(base.config._attn_implementation == attention)


def _pools_itself(model: Any) -> bool:
    """Whether the model reads cu_seq_lens_q when it pools, as ours does."""
    return bool(getattr(model, "pools_packed", False))


def encoder_of(model: Any) -> Any:
    """The stack of layers whose output the model's own pooler or head reads."""
    base = model.base_model
    base = base.encoder if _pools_itself(model) else base
    return getattr(base, "encoder", None) or getattr(base, "transformer", None)


def first_position(model: Any) -> int:
    """The position id of a text's first token: 0 for BERT, padding_idx + 1 for RoBERTa."""
    embeddings = next((module for name, module in model.named_modules() if name.endswith("embeddings")), None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


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


@torch.no_grad()
def _probe(model: Any, padded: PaddedBatches) -> float:
    """The largest difference between packed and padded logits of three texts, as a share of the largest logit."""
    if not _uses(model, ATTENTION):
        raise ValueError("its attention is its own, not one of transformers' AttentionInterface")
    rows = _probe_rows(model)
    with _evaluating(model):
        packed = model(**PackedBatches(first_position(model), CPU_MULTIPLE)(rows)).logits
        expected = model(**padded(rows)).logits
    return float((packed - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def computes_in_bfloat16(model: Any, device: str) -> bool:
    """Whether a type of device is quick at bfloat16, and the model, still on the CPU, gets through a batch in it.

    Some do not, as transformers has them: DeBERTa's first edition has a constant that is too large for it.
    """
    if not bfloat16_is_quick(device):
        return False
    try:
        with _evaluating(model), torch.autocast("cpu", torch.bfloat16):
            model(**padded_batches(model)(_probe_rows(model)))
    except (RuntimeError, ValueError, TypeError) as error:
        logger.info("float32, because %s does not run in bfloat16: %s", type(model).__name__, error)
        return False
    return True


def _probe_rows(model: Any) -> list[Row]:
    """From the middle of the vocabulary, where no special tokens lie."""
    middle = model.get_input_embeddings().num_embeddings // 2
    return [{"input_ids": [middle - place for place in range(length)]} for length in (5, 2, 7)]


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
