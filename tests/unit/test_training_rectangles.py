import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from include.training.rectangles import WIDEST_PRODUCT, attention, layout_of

HEADS, SIZE, SCALE = 3, 8, 0.3
SHORT, LONG = [5, 16, 1, 33, 16, 64], [3, WIDEST_PRODUCT + 1, 200, 66]


def _bounds(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def _one_by_one(projections: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    texts = projections[: sum(lengths)].split(lengths)
    parts = [part.permute(1, 2, 0, 3) for part in texts]  # (3, heads, tokens, size)
    return torch.cat([scaled_dot_product_attention(*part, scale=SCALE).transpose(0, 1) for part in parts])


@pytest.mark.parametrize("lengths", [SHORT, LONG, SHORT + LONG, [16, 16], [7], [32, 16, 48]])
@pytest.mark.parametrize("fillers", [0, 5])
def test_attention_and_its_gradient_are_those_of_each_text_alone(lengths: list[int], fillers: int) -> None:
    torch.manual_seed(0)
    projections = torch.randn(sum(lengths) + fillers, 3, HEADS, SIZE, requires_grad=True)
    upstream = torch.randn(sum(lengths) + fillers, HEADS, SIZE)
    expected = _one_by_one(projections, lengths)
    (gradient,) = torch.autograd.grad(expected, projections, upstream[: sum(lengths)])

    found = attention(projections, _bounds(lengths), SCALE)
    torch.testing.assert_close(found[: sum(lengths)], expected, atol=1e-5, rtol=1e-5)
    assert not found[sum(lengths) :].any(), "fillers belong to no text"
    torch.testing.assert_close(torch.autograd.grad(found, projections, upstream)[0], gradient, atol=1e-5, rtol=1e-4)


def test_in_bfloat16_only_what_goes_in_and_out_is_rounded() -> None:
    torch.manual_seed(0)
    exact = torch.randn(sum(SHORT), 3, HEADS, SIZE).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(exact, _bounds(SHORT), SCALE)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, _one_by_one(exact.float(), SHORT).bfloat16(), atol=0, rtol=0.01)


def test_texts_share_rectangles_and_long_texts_do_not_widen_those_of_short_ones() -> None:
    layout = layout_of(_bounds([5, 40, 16, 7, 33]))
    assert [(one.texts, one.width) for one in layout.rectangles] == [(3, 16), (2, 48)]


def test_texts_that_lie_as_a_rectangle_already_are_not_moved() -> None:
    layout = layout_of(_bounds([16, 16, 32]))
    assert layout.token_of is None
    assert layout.cell_of is None
    assert all(one.mask is None for one in layout.rectangles)
