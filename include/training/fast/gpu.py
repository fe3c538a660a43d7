"""What makes training on the GPU quicker than packed batches alone do; weights and their names stay as they are."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import logging
import shutil
from typing import Any

import torch
from torch.nn.functional import layer_norm

from include.training.layout import encoder_of

logger = logging.getLogger(__name__)

COMPILE_FROM = 50_000_000  # tokens in all epochs: compiling takes some 15 s and saves a sixth of the time


class BFloat16LayerNorm(torch.nn.LayerNorm):
    """Hands bfloat16 on, where autocast would hand on float32 and double what every layer reads and writes."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, hidden size), in any precision; the sums inside are in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            weight, bias = self.weight.bfloat16(), self.bias.bfloat16()
            return layer_norm(hidden.bfloat16(), list(self.normalized_shape), weight, bias, self.eps)


def accelerate(model: Any, tokens: int) -> str:
    """Prepares a classifier for training in bfloat16 on a GPU.

    Args:
        model: A transformers sequence classifier that takes packed batches.
        tokens: That it is going to see, in all epochs together.

    Returns:
        What was done, in a word or two.
    """
    for module in model.modules():
        if type(module) is torch.nn.LayerNorm:
            module.__class__ = BFloat16LayerNorm
    if tokens < COMPILE_FROM:
        return "eager"
    if not (shutil.which("cc") or shutil.which("gcc")):
        logger.warning(
            "layers are not compiled: no C compiler on this machine; training is a sixth slower than it could be"
        )
        return "eager"
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
    # Layer by layer: they share their code, so that it is compiled once and not twelve times.
    for layer in getattr(encoder_of(model), "layer", []):
        layer.compile(dynamic=True)
    return "compiled"
