"""What speed code does to models; that the whole trainer gives the same without it is in test_training_run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from include.training.batches import Batch, PaddedBatches
from include.training.fast import hardware, packing, prepare, probing
from include.training.fast.dropout import ATTENTION, ByteDropout, drop_by_bytes
from include.training.fast.first_token import compute_first_tokens_only
from include.training.fast.gpu import BFloat16LayerNorm, accelerate
from include.training.fast.packing import PackedBatches
from include.training.fast.sampling import WINDOW, SortedInWindows
from tests.unit.test_training_packing import ROWS, classifier


def test_layer_norms_in_bfloat16_answer_as_before_and_keep_their_weights_names(tmp_path: Path) -> None:
    model = classifier("bert", tmp_path).eval()
    batch = PaddedBatches(0)(ROWS)
    batch.pop("labels")
    before, names = model(**batch).logits, list(model.state_dict())
    # The GPU's preparation computes on the CPU too, only not quicker; what compiling does is not seen here.
    assert accelerate(model, tokens=1000) == "eager"
    assert sum(type(module) is BFloat16LayerNorm for module in model.modules()) == 5
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(**batch).logits.float(), before, atol=0.03, rtol=0)
    assert list(model.state_dict()) == names


def test_each_machine_gets_the_batches_that_suit_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare(classifier("bert", tmp_path), "cpu").batches == "sorted"
    monkeypatch.setattr(probing, "bfloat16_is_quick", lambda device: True)
    packed = prepare(classifier("bert", tmp_path), "cuda")
    assert (packed.batches, packed.bfloat16) == ("packed", True)
    monkeypatch.setattr(probing, "bfloat16_is_quick", lambda device: False)
    old_card = prepare(classifier("bert", tmp_path), "cuda")
    assert (old_card.batches, old_card.bfloat16) == ("sorted", False)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta"])
def test_of_the_last_layer_no_more_is_computed_than_the_head_reads(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    collate = PaddedBatches(model.get_input_embeddings().padding_idx or 0)
    before, seen = _gradients(model, collate(ROWS)), []
    encoder = model.base_model.encoder
    for layer in encoder.layer:
        layer.output.register_forward_hook(lambda module, inputs, found: seen.append(found.shape[1]))
    for _ in range(2):  # a model that is prepared again is left as it is
        compute_first_tokens_only(model)
    after = _gradients(model, collate(ROWS))
    assert seen[-2:] == [14, 1]
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["distilbert", "albert", "mean-pooled bert"])
def test_a_model_whose_head_reads_more_or_that_has_another_layout_computes_all(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    before = _gradients(model, PaddedBatches(0)(ROWS))
    compute_first_tokens_only(model)
    after = _gradients(model, PaddedBatches(0)(ROWS))
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, atol=0, rtol=0)


def test_a_head_that_reads_other_tokens_keeps_them(tmp_path: Path) -> None:
    model = classifier("bert", tmp_path).eval()
    model.bert.pooler.forward = lambda hidden: hidden.mean(1)
    before = _gradients(model, PaddedBatches(0)(ROWS))
    compute_first_tokens_only(model)
    after = _gradients(model, PaddedBatches(0)(ROWS))
    assert all(torch.equal(after[name], gradient) for name, gradient in before.items())


def _gradients(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Of each weight, and the logits."""
    model.zero_grad()
    logits = model(**batch).logits
    torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()  # type: ignore[no-untyped-call]
    return {"logits": logits.detach()} | {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def test_the_switch_leaves_a_model_as_transformers_has_it(
    tmp_path: Path, set_env: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_env(BERT_FAST="false")
    monkeypatch.setattr(probing, "bfloat16_is_quick", lambda device: True)
    model = classifier("bert", tmp_path)
    plain = prepare(model, "cuda")
    assert (plain.batches, plain.bfloat16, plain.layers) == ("padded", False, "eager")
    assert model.config._attn_implementation != packing.ATTENTION


def test_every_row_comes_once_an_epoch_in_batches_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 70 * 8 + 3)
    order = SortedInWindows(lengths, batch_size=8, seed=1)
    rows = list(order)
    assert sorted(rows) == list(range(len(lengths)))
    batches = [lengths[rows[at : at + 8]] for at in range(0, len(rows), 8)]
    assert len(batches[-1]) == 3, "the one that is not whole comes last"
    padded = sum(len(batch) * batch.max() for batch in batches)
    assert padded < 1.15 * lengths.sum()
    means = [batch.mean() for batch in batches[:WINDOW]]
    assert means != sorted(means), "long and short batches come mixed"


def test_the_order_is_that_of_seed_and_epoch() -> None:
    lengths = np.arange(500)

    def drawn(seed: int, epoch: int) -> list[int]:
        order = SortedInWindows(lengths, batch_size=8, seed=seed)
        order.set_epoch(epoch)
        return list(order)

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: found * 1.01, "another answer"),
        (lambda found: found.detach() + 0 * found, "no gradient"),
    ],
    ids=["logits", "gradients"],
)
def test_the_probe_sees_what_a_kernel_does_wrong(change: object, what: str, tmp_path: Path) -> None:
    model = classifier("bert", tmp_path)
    right = probing.probe(model, PaddedBatches(0))
    assert right.apart(probing.probe(model, PaddedBatches(0))) == 0
    model.classifier.register_forward_hook(lambda module, inputs, found: change(found))  # type: ignore[operator]
    assert probing.probe(model, PaddedBatches(0)).apart(right) > probing.TOLERANCE, what


def test_a_step_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    model = classifier("bert", tmp_path)
    model.classifier.register_forward_hook(
        lambda module, inputs, found: found * float("nan") if module.training else found
    )
    with pytest.raises(ValueError, match="no numbers"):
        probing.require_numbers_in_training(model, PaddedBatches(0))


def test_a_model_that_packs_was_probed_with_a_long_text(tmp_path: Path) -> None:
    seen = []
    model = classifier("bert", tmp_path)
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    assert isinstance(packing.packed_batches(model), PackedBatches)
    assert max(one.get("max_length_q", 0) for one in seen) == 40, "all positions that this small model has"


def test_it_computes_with_no_more_threads_than_it_may_use_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # is taken as a container's limit is
    hardware.limit_threads()
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == 1


def test_memory_that_is_freed_is_kept() -> None:
    hardware.keep_freed_memory()  # must do nothing worse than nothing, wherever this runs


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_random_bytes_drop_as_much_as_is_asked_for_and_the_seed_says_what(precision: torch.dtype) -> None:
    layer, values = ByteDropout(0.1), torch.ones(500, 401, dtype=precision, requires_grad=True)
    torch.manual_seed(1)
    dropped = layer(values)
    torch.manual_seed(1)
    assert torch.equal(layer(values), dropped), "a job that is resumed drops what it would have dropped"
    assert not torch.equal(layer(values), dropped)
    zeros = (dropped == 0).float()
    assert zeros.mean().item() == pytest.approx(0.1, abs=0.005)
    assert zeros.mean(0).std().item() == pytest.approx((0.1 * 0.9 / 500) ** 0.5, rel=0.2), "each by itself"
    assert dropped.dtype == precision
    assert dropped.float().mean().item() == pytest.approx(1, abs=0.01)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach())
    assert layer.eval()(values) is values


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "albert", "deberta", "mean-pooled bert"])
def test_a_model_that_drops_by_bytes_answers_as_before(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    batch = PaddedBatches(model.get_input_embeddings().padding_idx or 0)(ROWS)
    before = _gradients(model, batch)
    names, config = list(model.state_dict()), model.config.to_dict()
    drop_by_bytes(model)
    for name, gradient in _gradients(model, batch).items():
        torch.testing.assert_close(gradient, before[name], atol=1e-5, rtol=1e-4)
    assert (list(model.state_dict()), model.config.to_dict()) == (names, config)
    assert model.base_model.config._attn_implementation == (ATTENTION if family != "deberta" else "eager")


def test_attention_drops_its_weights_by_bytes_while_it_trains(tmp_path: Path) -> None:
    model = classifier("bert", tmp_path).train()
    drop_by_bytes(model)
    weights = [layer.attention.self(torch.randn(4, 90, 32))[1] for layer in model.bert.encoder.layer]
    shares = [(one == 0).float().mean().item() for one in weights]
    assert shares == pytest.approx([26 / 256] * len(shares), abs=0.01)


def test_attention_that_is_not_plain_stays_what_it_is(tmp_path: Path) -> None:
    model = classifier("bert", tmp_path)
    model.bert.encoder.layer[0].attention.self.register_forward_pre_hook(_turned_by_own_attention)
    drop_by_bytes(model)
    assert model.config._attn_implementation == "eager"


def _turned_by_own_attention(attention: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """As a family whose own attention does something that plain attention does not."""
    return tuple(one * 2 if attention.config._attn_implementation == "eager" else one for one in inputs)
