from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from include.training.batches import PaddedBatches
from include.training.fast.packing import PackedBatches, packed_batches
from include.training.model import build_classifier
from tests.unit.training_models import CONFIGS, save_bert

ROWS = [{"input_ids": [2, *range(5, 5 + length), 3], "labels": length % 3} for length in (1, 9, 4, 4, 2, 12)]


def classifier(family: str, folder: Path) -> Any:
    torch.manual_seed(1)
    if family == "mean-pooled bert":
        return build_classifier(str(save_bert(folder, mean_pooling=True)), ["a", "b", "c"], "tiny")[0]
    config = deepcopy(CONFIGS[family])
    config.num_labels = 3
    return AutoModelForSequenceClassification.from_config(config)


FAMILIES = ["bert", "distilbert", "roberta", "albert", "mean-pooled bert"]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_equal_padded_ones(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    padded = PaddedBatches(model.get_input_embeddings().padding_idx)(ROWS)
    expected = model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).logits
    packed = packed_batches(model)
    assert isinstance(packed, PackedBatches)
    batch = packed(ROWS)
    batch.pop("labels")
    assert batch["input_ids"].shape == (1, 44)
    torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_equal_padded_ones(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    gradients = []
    for collate in (PaddedBatches(model.get_input_embeddings().padding_idx), packed_batches(model)):
        assert collate is not None
        batch = collate(ROWS)
        labels = batch.pop("labels")
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch).logits, labels).backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_packs_still_takes_padded_batches(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    batch = PaddedBatches(model.get_input_embeddings().padding_idx)(ROWS)
    batch.pop("labels")
    before = model(**batch).logits
    packed_batches(model)
    torch.testing.assert_close(model(**batch).logits, before, atol=1e-5, rtol=0)


def test_an_encoder_whose_attention_cannot_pack_gets_padded_batches(caplog: pytest.LogCaptureFixture) -> None:
    model = classifier("deberta", Path()).eval()
    batch = PaddedBatches(0)(ROWS)
    batch.pop("labels")
    before = model(**batch).logits
    with caplog.at_level("INFO", "include"):
        assert packed_batches(model) is None
    assert "padded batches: DebertaV2ForSequenceClassification" in caplog.text
    torch.testing.assert_close(model(**batch).logits, before, atol=0, rtol=0)


def test_packing_leaves_no_trace_in_the_saved_model(tmp_path: Path) -> None:
    model = classifier("bert", tmp_path)
    packed_batches(model)
    model.save_pretrained(tmp_path / "saved")
    assert "packed" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logits_equal_padded_ones_within_bfloat16(family: str, tmp_path: Path) -> None:
    model = classifier(family, tmp_path).eval()
    padded = PaddedBatches(model.get_input_embeddings().padding_idx)(ROWS)
    padded.pop("labels")
    exact = model(**padded).logits
    packed_rows = packed_batches(model)
    assert packed_rows is not None
    batch = packed_rows(ROWS)
    batch.pop("labels")
    with torch.autocast("cpu", torch.bfloat16):
        packed, rounded = model(**batch).logits.float(), model(**padded).logits.float()
    # No further from the padded model's than that one's own rounding takes it.
    tolerance = max(0.01, 2 * (rounded - exact).abs().max().item())
    torch.testing.assert_close(packed, rounded, atol=tolerance, rtol=0)
