from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.nn.functional import layer_norm
from transformers import AutoModelForSequenceClassification

from include.training.bert_layer import quicken
from include.training.dropout import mask
from include.training.packing import collator_for, padded_batches
from tests.unit.test_training_packing import ROWS
from tests.unit.training_models import CONFIGS


def _model(family: str = "bert") -> Any:
    torch.manual_seed(0)
    config = deepcopy(CONFIGS[family])
    config.num_labels = 3
    return AutoModelForSequenceClassification.from_config(config)


def _gradients(model: Any, batch: dict[str, Any], precision: torch.dtype) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = model(**batch).logits
    logits.float().pow(2).sum().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(("family", "parts"), [("bert", 8), ("roberta", 8), ("distilbert", 0), ("albert", 0)])
def test_parts_that_are_laid_out_as_in_bert_are_found(family: str, parts: int) -> None:
    model = _model(family)
    quicken(model)
    assert model.config.num_hidden_layers == 2
    assert sum("forward" in vars(module) for module in model.modules()) == parts


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_the_gradient_of_every_weight_is_the_usual_one(precision: torch.dtype, tolerance: float) -> None:
    usual, quick = _model().eval(), _model().eval()
    quicken(quick)
    batch = {"input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 9, 3, 0, 0]])}
    batch["attention_mask"] = (batch["input_ids"] > 0).long()
    expected, found = _gradients(usual, batch, torch.float32), _gradients(quick, batch, precision)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        scale = float(gradient.abs().max()) + 1e-6
        assert float((found[name] - gradient).abs().max()) / scale < tolerance, name


def test_dropout_drops_the_same_in_the_gradient_as_in_the_answer() -> None:
    part = _model().train().bert.encoder.layer[0].output
    part.dropout.p = 0.3
    hidden = torch.randn(9, part.dense.in_features, requires_grad=True)
    before = torch.randn(9, part.dense.out_features, requires_grad=True)
    upstream = torch.randn(9, part.dense.out_features)
    wanted = [hidden, before, part.dense.weight, part.dense.bias, part.LayerNorm.weight, part.LayerNorm.bias]

    torch.manual_seed(5)
    dense = part.dense(hidden)
    norm = part.LayerNorm
    expected = layer_norm(before + dense * mask(dense, 0.3), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    gradients = torch.autograd.grad(expected, wanted, upstream)

    quicken(part)
    torch.manual_seed(5)
    found = part(hidden, before)
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, wanted, upstream), gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def _losses(packed: bool) -> torch.Tensor:
    model = _model().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    collate = collator_for(model) if packed else padded_batches(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = model(**collate(ROWS)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return torch.tensor(losses)


def test_a_packed_model_learns_what_a_padded_one_does() -> None:
    packed, padded = _losses(True), _losses(False)
    assert packed[-1] < packed[0] - 0.05
    torch.testing.assert_close(packed, padded, atol=1e-3, rtol=1e-2)
