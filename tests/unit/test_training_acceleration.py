import pytest
import torch

from include.training.acceleration import BFloat16LayerNorm, accelerate_on_cpu, accelerate_on_gpu
from include.training.dropout import QuickDropout
from include.training.packing import collator_for
from tests.unit.test_training_packing import ROWS
from tests.unit.training_models import CONFIGS


@pytest.mark.parametrize("shape", [(1000, 333), (1, 5), (0, 4)])
def test_dropout_drops_its_share_and_keeps_the_mean(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    hidden = torch.ones(shape, requires_grad=True)
    dropped = QuickDropout(0.1)(hidden)
    assert dropped.shape == shape
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.9))
    dropped.sum().backward()
    torch.testing.assert_close(hidden.grad, dropped.detach())
    if hidden.numel() > 1000:
        assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.003)


def test_dropout_is_repeated_by_the_same_seed_and_only_by_it() -> None:
    drop, hidden = QuickDropout(0.5), torch.ones(40, 40)
    torch.manual_seed(1)
    first, second = drop(hidden), drop(hidden)
    torch.manual_seed(1)
    torch.testing.assert_close(drop(hidden), first)
    assert not torch.equal(first, second)


def test_dropout_does_nothing_outside_training_or_with_probability_zero() -> None:
    hidden = torch.ones(9, 9)
    assert QuickDropout(0.5).eval()(hidden) is hidden
    assert QuickDropout(0.0)(hidden) is hidden


def test_accelerated_models_answer_as_before_and_keep_their_weights_names() -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS["bert"]).eval()
    batch = collator_for(model)(ROWS)
    batch.pop("labels")
    before, names = model(**batch).logits, list(model.state_dict())
    accelerate_on_cpu(model)
    torch.testing.assert_close(model(**batch).logits, before)
    # The GPU's preparation too computes on the CPU, only not quicker; what compiling does is not seen here.
    assert accelerate_on_gpu(model, tokens=1000) == "eager"
    assert sum(type(module) is BFloat16LayerNorm for module in model.modules()) == 5
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(**batch).logits.float(), before, atol=0.03, rtol=0)
    assert list(model.state_dict()) == names
