from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from include.training.fast.vocabulary import Vocabulary
from tests.unit.training_models import CONFIGS


def _train(model: torch.nn.Module, ids: torch.Tensor) -> None:
    """As Trainer does: AdamW with decay, a schedule, clipped gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 20)
    labels = torch.arange(len(ids)) % 2
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(input_ids=ids).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta"])
def test_trained_on_the_used_word_vectors_a_model_becomes_what_it_would_have_become(family: str) -> None:
    torch.manual_seed(0)
    whole = AutoModelForSequenceClassification.from_config(CONFIGS[family]).eval()
    part = deepcopy(whole)
    ids = torch.tensor([[2, 7, 9, 20, 3], [2, 12, 9, 25, 3], [2, 8, 30, 9, 3]])
    used = np.zeros(whole.get_input_embeddings().num_embeddings, dtype=np.bool_)
    used[ids] = True

    vocabulary = Vocabulary(part, used)
    assert part.get_input_embeddings().weight.shape[0] < whole.get_input_embeddings().weight.shape[0]
    _train(whole, ids)
    _train(part, torch.from_numpy(vocabulary.renumbered)[ids])
    vocabulary.restore()

    expected = whole.state_dict()
    assert expected.keys() == part.state_dict().keys()
    for name, weights in part.state_dict().items():
        torch.testing.assert_close(
            weights, expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_a_restored_model_is_saved_with_all_its_words(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_config(CONFIGS["bert"])
    before = model.get_input_embeddings().weight.detach().clone()
    used = np.zeros(len(before), dtype=np.bool_)
    used[5:9] = True
    Vocabulary(model, used).restore()
    model.save_pretrained(tmp_path)
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(saved.get_input_embeddings().weight, before)
