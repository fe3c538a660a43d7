"""What makes training and scoring quicker than plain transformers. ``BERT_FAST=false`` does without all of it.

What a step computes is the same within rounding, and as much is dropped; which texts share a step is not the same.
docs/benchmarks.md says what each piece gains:

- sampling: texts of like lengths share a batch
- vocabulary: only the word vectors that the data use are trained
- first_token: the last layer is computed for the token that the head reads
- dropout: masks of random bytes, on the CPU
- packing: batches without padding, on the GPU
- gpu: layer norms in bfloat16, and compiled layers for long jobs
- openvino: models that answer for long on a CPU are compiled by it
- hardware: bfloat16 where the machine is quick at it, and memory that is kept
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from include.settings import settings
from include.training.batches import Collator, padded_batches
from include.training.fast.dropout import drop_by_bytes
from include.training.fast.first_token import compute_first_tokens_only
from include.training.fast.gpu import accelerate
from include.training.fast.hardware import keep_freed_memory
from include.training.fast.openvino import compile_to_score
from include.training.fast.packing import PackedBatches, packed_batches
from include.training.fast.probing import computes_in_bfloat16
from include.training.layout import encoder_of, pools_itself


@dataclass(frozen=True)
class Prepared:
    """How a model goes through its texts on this machine."""

    model: Any
    collator: Collator
    bfloat16: bool = False
    sorted_by_length: bool = False  # texts of like lengths are to share a batch
    layers: str = "eager"  # or compiled

    @property
    def batches(self) -> str:
        """What its batches are called in a result: packed, sorted or padded."""
        if isinstance(self.collator, PackedBatches):
            return "packed"
        return "sorted" if self.sorted_by_length else "padded"


def prepare(model: Any, device: str, tokens: int = 0) -> Prepared:
    """Prepares a classifier for training.

    Args:
        model: A transformers sequence classifier, on the CPU. It is changed in place; weights, their names and the
            saved config stay as they are.
        device: The type of device that it is to train on: cpu or cuda.
        tokens: That it is going to see, in all epochs together.
    """
    if not settings().fast:
        return Prepared(model, padded_batches(model))
    keep_freed_memory()
    bfloat16 = computes_in_bfloat16(model, device)
    packed = packed_batches(model) if bfloat16 and device == "cuda" else None
    if packed is None:
        compute_first_tokens_only(model)
        if device == "cpu":
            drop_by_bytes(model)
        return Prepared(model, padded_batches(model), bfloat16, sorted_by_length=True)
    return Prepared(model, packed, bfloat16, layers=accelerate(model, tokens))


def prepare_to_score(
    model: Any, device: str, *, compiled: bool = False, precisions: Sequence[str] = ()
) -> list[Prepared]:
    """What answers as a trained classifier does, and sooner: the quickest first, after it what decides its close calls.

    Args:
        model: A transformers sequence classifier, on the CPU. Its answers stay what they are, and decide what is still
            close.
        device: The type of device that the others are to run on: cpu or cuda.
        compiled: Whether it is going to answer for so long that seconds of compiling are worth it.
        precisions: In which a model that was compiled before is the quickest on this machine. None: it is tried.
    """
    if not settings().fast:
        return []
    if device == "cpu":
        compute_first_tokens_only(model)
    usual = _encoder_in_bfloat16(model, device) if not precisions and computes_in_bfloat16(model, device) else None
    if compiled and device == "cpu" and (found := compile_to_score(model, usual.model if usual else model, precisions)):
        return [Prepared(one, padded_batches(model), one.bfloat16, sorted_by_length=True) for one in found]
    if precisions:  # it has a layer that the others had not
        return prepare_to_score(model, device, compiled=compiled)
    return [usual] if usual else []


def _encoder_in_bfloat16(model: Any, device: str) -> Prepared:
    model = deepcopy(model)
    packed = packed_batches(model) if device == "cuda" else None
    base = model.encoder if pools_itself(model) else model.base_model
    base.bfloat16()
    # What follows the encoder is a small part, after which bfloat16 sees ties.
    encoder = encoder_of(model)
    heads = [part for part in model.children() if encoder is not None and encoder not in set(part.modules())]
    for head in filter(None, [*heads, getattr(base, "pooler", None) if encoder is not None else None]):
        head.float().register_forward_pre_hook(_in_float32)
    return Prepared(model, packed or padded_batches(model), bfloat16=True, sorted_by_length=True)


def _in_float32(head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(one.float() for one in inputs)
