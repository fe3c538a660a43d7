"""Attention inside the texts of a packed batch, on the CPU: texts of like lengths share two matrix products.

torch's own kernel for the CPU takes three times as long on texts of some ten tokens. All is computed in float32, which
on rectangles this small costs no more than bfloat16 does.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

WIDEST_PRODUCT = 64  # tokens; on longer texts torch's kernel is the quicker one, and needs no room for the scores
STEP = 16  # cells: a row is a multiple; torch's softmax takes three to seven times as long on others
Saved = list[torch.Tensor]
flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Rectangle:
    """Texts of like lengths, each in a row of cells."""

    texts: int
    width: int  # cells of a row, as many as the longest text has tokens
    mask: torch.Tensor | None  # (texts, 1, 1, width), 0 or -inf, to be added to the scores; None if all cells are used

    @property
    def cells(self) -> int:
        """Of all rows together."""
        return self.texts * self.width


@dataclass(frozen=True)
class Layout:
    """Where a packed batch's tokens go, and where they come back from."""

    token_of: torch.Tensor | None  # (cells), any token for an unused cell; None if the tokens lie that way already
    cell_of: torch.Tensor | None  # (tokens); None likewise
    rectangles: tuple[Rectangle, ...]
    tokens: int
    cells: int


def layout_of(bounds: torch.Tensor) -> Layout:
    """Puts the texts of a packed batch into rectangles.

    Args:
        bounds: Where each text begins, and where the last one ends: (texts + 1).
    """
    return _layout(tuple(bounds.diff().tolist()))


@lru_cache(maxsize=2)  # each layer asks for it
def _layout(lengths: tuple[int, ...]) -> Layout:
    widths = [-(-length // STEP) * STEP for length in lengths]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    token_of, used, rectangles = [], [], []
    for width in sorted(set(widths)):
        group = [text for text, its in enumerate(widths) if its == width]
        cell = torch.arange(width)
        filled = cell < torch.tensor([lengths[text] for text in group])[:, None]
        token_of.append((starts[group][:, None] + cell).where(filled, 0).flatten())
        used.append(filled.flatten())
        mask = torch.zeros(len(group), 1, 1, width).masked_fill_(~filled[:, None, None], float("-inf"))
        rectangles.append(Rectangle(len(group), width, None if filled.all() else mask))
    tokens, cells = torch.cat(token_of), torch.cat(used).nonzero().flatten()
    if torch.equal(tokens, torch.arange(sum(lengths))):
        return Layout(None, None, tuple(rectangles), sum(lengths), len(tokens))
    cell_of = torch.empty(sum(lengths), dtype=torch.int64)
    cell_of[tokens[cells]] = cells
    return Layout(tokens, cell_of, tuple(rectangles), sum(lengths), len(tokens))


def attention(projections: torch.Tensor, bounds: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of each text to itself, for autograd.

    Args:
        projections: Query, key and value of each token: (tokens, 3, heads, head size).
        bounds: Of the texts, (texts + 1). Tokens beyond the last one belong to no text and get zeros.
        scale: Of the scores.

    Returns:
        (tokens, heads, head size)
    """
    with torch.autocast("cpu", enabled=False):
        found: torch.Tensor = _Attention.apply(projections, layout_of(bounds), scale)  # type: ignore[no-untyped-call]
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projections: torch.Tensor, where: Layout, scale: float) -> torch.Tensor:
        attended, saved = attend(projections, where, scale)
        ctx.where, ctx.scale = where, scale
        ctx.save_for_backward(*saved)
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return attend_backward(gradient, ctx.where, ctx.scale, ctx.saved_tensors), None, None


def attend(projections: torch.Tensor, where: Layout, scale: float) -> tuple[torch.Tensor, Saved]:
    """Attention of each text to itself.

    Args:
        projections: Query, key and value of each token: (tokens, 3, heads, head size).
        where: The batch's layout; tokens beyond its own belong to no text and get zeros.
        scale: Of the scores.

    Returns:
        (tokens, heads, head size), and what `attend_backward` needs.
    """
    tokens, _, *head = projections.shape
    cells = projections[: where.cells] if where.token_of is None else projections.index_select(0, where.token_of)
    attended, saved = projections.new_empty(where.cells, *head), Saved()
    start = 0
    for rectangle in where.rectangles:
        part = slice(start, start := start + rectangle.cells)
        block = _block(cells[part], rectangle)  # (3, texts, heads, width, head size)
        found = _attend(block, rectangle, scale)
        _rows(attended[part], rectangle).copy_(found[0])
        saved += [block, *found] if rectangle.width > WIDEST_PRODUCT else [block, *found[1:]]
    if where.cell_of is not None:
        attended = attended.index_select(0, where.cell_of)
    return _longer(attended, tokens), saved


def attend_backward(gradient: torch.Tensor, where: Layout, scale: float, saved: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gradient (tokens, 3, heads, head size) of `attend`'s projections, from that of its result."""
    tokens, *head = gradient.shape
    gradient = gradient[: where.tokens]
    if where.cell_of is not None:
        gradient = gradient.new_zeros(where.cells, *head).index_copy_(0, where.cell_of, gradient)
    projections = gradient.new_empty(where.cells, 3, *head)
    start, kept = 0, iter(saved)
    for rectangle in where.rectangles:
        part = slice(start, start := start + rectangle.cells)
        found = _attend_backward(_rows(gradient[part], rectangle).float(), rectangle, scale, kept)
        for column, one in zip(projections[part].unbind(1), found, strict=True):
            _rows(column, rectangle).copy_(one)
    if where.cell_of is not None:
        projections = projections.index_select(0, where.cell_of)
    return _longer(projections, tokens)


def _attend(block: torch.Tensor, rectangle: Rectangle, scale: float) -> Saved:
    """The result (texts, heads, width, head size), and what else its gradient takes."""
    if rectangle.width > WIDEST_PRODUCT:
        return list(flash(*block.unbind(), attn_mask=rectangle.mask, scale=scale))
    query, key, value = block.flatten(1, 2)
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale).view(*block.shape[1:4], -1)
    weights = (scores if rectangle.mask is None else scores.add_(rectangle.mask)).softmax(-1).flatten(0, 1)
    return [torch.bmm(weights, value).view(block.shape[1:]), weights]


def _attend_backward(
    upstream: torch.Tensor, rectangle: Rectangle, scale: float, saved: Iterator[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """The gradients of query, key and value, each (texts, heads, width, head size)."""
    block = next(saved)
    if rectangle.width > WIDEST_PRODUCT:
        attended, log_sums = next(saved), next(saved)
        arguments = (*block.unbind(), attended, log_sums, 0.0, False)
        return list(flash_backward(upstream, *arguments, attn_mask=rectangle.mask, scale=scale))
    weights = next(saved)
    upstream = upstream.flatten(0, 1)
    query, key, value = block.flatten(1, 2)
    of_scores = torch._softmax_backward_data(
        torch.bmm(upstream, value.transpose(1, 2)), weights, -1, torch.float32
    ).mul_(scale)
    found = (
        torch.bmm(of_scores, key),
        torch.bmm(of_scores.transpose(1, 2), query),
        torch.bmm(weights.transpose(1, 2), upstream),
    )
    return [one.view(block.shape[1:]) for one in found]


def _block(cells: torch.Tensor, rectangle: Rectangle) -> torch.Tensor:
    """(cells, 3, heads, head size) to (3, texts, heads, width, head size) in float32."""
    rows = cells.view(rectangle.texts, rectangle.width, *cells.shape[1:]).permute(2, 0, 3, 1, 4)
    return torch.empty(rows.shape, dtype=torch.float32).copy_(rows)


def _rows(cells: torch.Tensor, rectangle: Rectangle) -> torch.Tensor:
    """A view of (cells, heads, head size) as (texts, heads, width, head size)."""
    return cells.view(rectangle.texts, rectangle.width, *cells.shape[1:]).transpose(1, 2)


def _longer(packed: torch.Tensor, tokens: int) -> torch.Tensor:
    """With zeros for the tokens that belong to no text."""
    missing = tokens - len(packed)
    return torch.cat([packed, packed.new_zeros(missing, *packed.shape[1:])]) if missing else packed
