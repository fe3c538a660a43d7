"""The parts of BERT's encoder layer on the CPU while their weights do not change."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import layer_norm

from include.training.bert_layer import parts
from include.training.rectangles import attend, layout_of

TOKENS = 2048  # per batch, about: what the order of the weights is chosen for
Forward = Callable[..., Any]


@contextmanager
def frozen(model: torch.nn.Module, wanted: bool) -> Iterator[None]:
    """Has all parts compute in bfloat16 with weights that are rounded and put in the processor's order once.

    Args:
        model: One that packs, in inference mode. On a GPU it stays as it is, and so do parts of other layouts.
        wanted: False for no change at all.
    """
    possible = wanted and next(model.parameters()).device.type == "cpu" and torch._C._has_mkldnn
    found = parts(model, _attention, _add_and_norm, _feed_forward) if possible else []
    usual = [(module, module.forward) for module, _ in found]
    for module, way in found:
        module.forward = way(module, module.forward)
    try:
        yield
    finally:
        for module, forward in usual:
            module.forward = forward


def _linear(weight: torch.Tensor, bias: torch.Tensor, then: str = "none") -> Callable[[torch.Tensor], torch.Tensor]:
    """A dense layer, and what comes after it: "none" or "gelu"."""
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), TOKENS)
    rounded = bias.bfloat16()

    def apply(hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden.bfloat16(), ordered, rounded, then, [], "none" if then == "gelu" else ""
        )
        return found

    return apply


def _attention(module: Any, usual: Forward) -> Forward:
    weight, bias = (
        torch.cat([getattr(one, of) for one in (module.query, module.key, module.value)]) for of in ("weight", "bias")
    )
    project = _linear(weight, bias)

    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        bounds = kwargs.get("cu_seq_lens_q")
        if bounds is None:
            return usual(hidden_states, *args, **kwargs)
        projections = project(hidden_states[0]).view(hidden_states.shape[1], 3, -1, module.attention_head_size)
        return attend(projections, layout_of(bounds), module.scaling)[0].flatten(1).unsqueeze(0), None

    return forward


def _add_and_norm(module: Any, usual: Forward) -> Forward:
    dense, norm = _linear(module.dense.weight, module.dense.bias), module.LayerNorm

    def forward(hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        total = input_tensor + dense(hidden_states)
        return layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    return forward


def _feed_forward(module: Any, usual: Forward) -> Forward:
    return _linear(module.dense.weight, module.dense.bias, "gelu")
