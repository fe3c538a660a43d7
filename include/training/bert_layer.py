"""The parts of BERT's encoder layer on the CPU, each forward and backward in as few steps as it takes.

Left to autograd and autocast, half the time of a step on short texts goes into what surrounds the matrix products: the
same input converted three times, a conversion and a graph node for each small thing. The precision is the one that
autocast gives: products in bfloat16; weights, sums, layer norms and the stream of hidden states in float32.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

from functools import partial
from typing import Any

import torch
from torch.nn.functional import gelu, linear
from transformers.activations import GELUActivation

from include.training.dropout import mask
from include.training.rectangles import Layout, attend, attend_backward, layout_of

Gradients = tuple[torch.Tensor | None, ...]


def quicken(model: torch.nn.Module) -> None:
    """Lets each part that is laid out as in BERT (RoBERTa, ELECTRA, …) compute the way of this module, on the CPU.

    Args:
        model: Any. Weights and their names stay as they are; whether the answers do is to be seen.
    """
    for module, way in parts(model, _attention, _add_and_norm, _feed_forward):
        module.forward = partial(way, module, module.forward)


def parts(
    model: torch.nn.Module, attention: Any, add_and_norm: Any, feed_forward: Any
) -> list[tuple[torch.nn.Module, Any]]:
    """The parts of BERT's layer in a model, each with what is given here for its kind."""
    kinds = ((_projects, attention), (_adds, add_and_norm), (_activates, feed_forward))
    return [(module, way) for module in model.modules() for fits, way in kinds if fits(module)]


def _is_linear(module: torch.nn.Module, *names: str) -> bool:
    linears = [getattr(module, name, None) for name in names]
    return all(type(one) is torch.nn.Linear and one.bias is not None for one in linears)


def _projects(module: torch.nn.Module) -> bool:
    # With a dense layer as well it is ALBERT's, which does more.
    return (
        _is_linear(module, "query", "key", "value")
        and {"attention_head_size", "scaling"} <= vars(module).keys()
        and not hasattr(module, "dense")
    )


def _adds(module: torch.nn.Module) -> bool:
    norm, dropout = getattr(module, "LayerNorm", None), getattr(module, "dropout", None)
    return _is_linear(module, "dense") and type(norm) is torch.nn.LayerNorm and isinstance(dropout, torch.nn.Dropout)


def _activates(module: torch.nn.Module) -> bool:
    return _is_linear(module, "dense") and type(getattr(module, "intermediate_act_fn", None)) is GELUActivation


def _attention(module: Any, usual: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Self-attention; (1, tokens, hidden) of a packed batch in and out, and no weights."""
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None:
        return usual(hidden_states, *args, **kwargs)
    where = layout_of(bounds)
    parts = [part for one in (module.query, module.key, module.value) for part in (one.weight, one.bias)]
    size = module.attention_head_size
    return _apply(_SelfAttention, hidden_states[0], where, size, module.scaling, *parts).unsqueeze(0), None


def _add_and_norm(module: Any, usual: Any, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
    """A dense layer, dropout, what there was before, layer norm; (…, hidden) out."""
    dense, norm = module.dense, module.LayerNorm
    dropped = module.dropout.p if module.dropout.training else 0.0
    inputs = (hidden_states.flatten(0, -2), input_tensor.flatten(0, -2))
    found = _apply(_AddAndNorm, *inputs, dense.weight, dense.bias, norm.weight, norm.bias, norm.eps, dropped)
    return found.view(input_tensor.shape)


def _feed_forward(module: Any, usual: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """A dense layer and GELU; (…, hidden) to (…, intermediate)."""
    found = _apply(_DenseGelu, hidden_states.flatten(0, -2), module.dense.weight, module.dense.bias)
    return found.view(*hidden_states.shape[:-1], -1)


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> torch.Tensor:
    """Hands the precision of products on, and keeps autocast out of the rest."""
    products = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    with torch.autocast("cpu", enabled=False):
        found: torch.Tensor = function.apply(products, *inputs)  # type: ignore[no-untyped-call]
    return found


class _SelfAttention(torch.autograd.Function):
    """(tokens, hidden) to (tokens, hidden), one product for query, key and value."""

    @staticmethod
    def forward(
        ctx: Any,
        products: torch.dtype,
        hidden: torch.Tensor,
        where: Layout,
        size: int,
        scale: float,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        hidden = hidden.to(products)
        weight, bias = (torch.cat([part.to(products) for part in some]) for some in (parts[::2], parts[1::2]))
        projections = linear(hidden, weight, bias).view(len(hidden), 3, -1, size)
        attended, saved = attend(projections, where, scale)
        ctx.where, ctx.scale = where, scale
        ctx.save_for_backward(hidden, weight, *saved)
        return attended.flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        hidden, weight, *saved = ctx.saved_tensors
        heads = gradient.view(len(hidden), -1, saved[0].shape[-1])
        of_projections = attend_backward(heads, ctx.where, ctx.scale, saved).flatten(1)
        of_weights = (of_projections.t() @ hidden).float().chunk(3)
        of_biases = of_projections.sum(0, dtype=torch.float32).chunk(3)
        parts = (part for both in zip(of_weights, of_biases, strict=True) for part in both)
        return None, (of_projections @ weight).float(), None, None, None, *parts


class _AddAndNorm(torch.autograd.Function):
    """Layer norm of the sum of `before` (tokens, hidden) and a dense layer of `hidden` (tokens, any)."""

    @staticmethod
    def forward(
        ctx: Any,
        products: torch.dtype,
        hidden: torch.Tensor,
        before: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        gain: torch.Tensor,
        shift: torch.Tensor,
        epsilon: float,
        dropped: float,
    ) -> torch.Tensor:
        hidden, weight = hidden.to(products), weight.to(products)
        found = linear(hidden, weight, bias.to(products))
        kept = mask(found, dropped) if dropped else None
        total = before + (found if kept is None else found.mul_(kept))
        normed, mean, inverse = torch.native_layer_norm(total, gain.shape, gain, shift, epsilon)
        ctx.save_for_backward(hidden, weight, kept, total, mean, inverse, gain, shift)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        hidden, weight, kept, total, mean, inverse, gain, shift = ctx.saved_tensors
        of_total, of_gain, of_shift = torch.ops.aten.native_layer_norm_backward(
            gradient, total, gain.shape, mean, inverse, gain, shift, [True, True, True]
        )
        of_found = of_total.to(hidden.dtype)
        if kept is not None:
            of_found = of_found.mul_(kept) if of_found is not of_total else of_found * kept
        of_weight = (of_found.t() @ hidden).float()
        of_bias = of_found.sum(0, dtype=torch.float32)
        return None, of_found @ weight, of_total, of_weight, of_bias, of_gain, of_shift, None, None


class _DenseGelu(torch.autograd.Function):
    """(tokens, hidden) to (tokens, intermediate)."""

    @staticmethod
    def forward(
        ctx: Any, products: torch.dtype, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        hidden, weight = hidden.to(products), weight.to(products)
        found = linear(hidden, weight, bias.to(products))
        ctx.save_for_backward(hidden, weight, found)
        return gelu(found)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        hidden, weight, found = ctx.saved_tensors
        of_found = torch.ops.aten.gelu_backward(gradient, found)
        of_hidden = (of_found @ weight).float()
        return None, of_hidden, (of_found.t() @ hidden).float(), of_found.sum(0, dtype=torch.float32)
