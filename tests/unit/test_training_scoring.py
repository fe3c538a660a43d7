import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CanineConfig,
    DebertaConfig,
    MobileBertConfig,
    MPNetConfig,
    RobertaPreLayerNormConfig,
)

from include.training import scoring
from include.training.errors import TrainingError
from include.training.fast import probing
from include.training.model import build_classifier, load_classifier
from include.training.scoring import score
from tests.unit.training_models import CONFIGS, SIZES, rows, save_bert, save_tokenizer

LABELS = ["card", "fee", "transfer"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean-pooled classifier, untrained but saved as the trainer saves one."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    model, tokenizer = build_classifier(str(save_bert(folder / "base", mean_pooling=True)), LABELS, "tiny")
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    tokenizer.model_max_length = 12
    model.save_pretrained(folder / "saved")
    tokenizer.save_pretrained(folder / "saved")
    return folder / "saved"


def test_answers_come_in_the_texts_order(saved: Path) -> None:
    texts = [text for text, _ in rows(150)]
    together = score(str(saved), texts)
    assert together.labels == LABELS
    assert together.probabilities.dtype == np.float32
    np.testing.assert_allclose(together.probabilities.sum(1), 1, atol=1e-5)
    for index in (0, 7, 149):
        alone = score(f"file://{saved}", [texts[index]])
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[index], atol=1e-5)
        assert alone.predicted == [together.predicted[index]]


def test_no_texts(saved: Path) -> None:
    scores = score(str(saved), [])
    assert scores.probabilities.shape == (0, 3)
    assert scores.predicted == []


def test_an_empty_text_is_scored_like_any_other(saved: Path) -> None:
    assert np.isfinite(score(str(saved), ["", "card"]).probabilities).all()


def test_long_texts_are_cut_to_the_length_of_training(saved: Path) -> None:
    assert load_classifier(str(saved)).max_length == 12
    long, cut = ("card fee " * 500, "card fee " * 5)
    scores = score(str(saved), [long, cut])
    np.testing.assert_allclose(scores.probabilities[0], scores.probabilities[1], atol=1e-6)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "deberta"])
def test_any_transformers_classifier_is_scored(family: str, tmp_path: Path) -> None:
    config = CONFIGS[family]
    config.num_labels = 2
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    scores = score(str(tmp_path), ["card " * 100, "fee"])
    assert scores.labels == ["LABEL_0", "LABEL_1"]
    assert scores.probabilities.shape == (2, 2)


def test_an_encoder_without_a_head_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no trained sequence classifier: it lacks classifier"):
        load_classifier(str(save_bert(tmp_path, mean_pooling=False)))


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing below"):
        load_classifier(f"file://{tmp_path}/none")


def test_plain_transformers_refuses_a_mean_pooled_model_instead_of_answering_wrongly(saved: Path) -> None:
    code = "import sys; from transformers import pipeline; print(pipeline('text-classification', sys.argv[1])('card'))"
    found = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "mean-pooled-classifier" in found.stderr


def test_a_head_goes_on_only_for_the_same_labels(saved: Path) -> None:
    before = load_classifier(str(saved)).model.classifier.weight
    same, _ = build_classifier(str(saved), LABELS, "tiny")
    torch.testing.assert_close(same.classifier.weight, before)
    other, _ = build_classifier(str(saved), ["card", "fee", "other"], "tiny")
    assert not torch.allclose(other.classifier.weight, before)
    more, _ = build_classifier(str(saved), [*LABELS, "zebra"], "tiny")
    assert more.classifier.weight.shape == (4, 32)


def _is_quick(yes: bool) -> Callable[[str], bool]:
    return lambda device: yes


def test_labels_are_those_of_float32(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text, _ in rows(400, seed=4)]
    monkeypatch.setattr(probing, "bfloat16_is_quick", _is_quick(True))
    found = score(str(saved), texts)
    monkeypatch.setattr(probing, "bfloat16_is_quick", _is_quick(False))
    exact = score(str(saved), texts)
    assert found.predicted == exact.predicted
    np.testing.assert_allclose(found.probabilities, exact.probabilities, atol=0.02)


def test_near_ties_are_decided_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two best labels differ by less than what rounding takes off, so only a second look can tell them apart."""
    torch.manual_seed(0)
    config = deepcopy(CONFIGS["bert"])
    config.num_labels = 2
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight[1] = model.classifier.weight[0] + 1e-3 * torch.randn(32)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    texts = [text for text, _ in rows(300, seed=4)]
    monkeypatch.setattr(probing, "bfloat16_is_quick", _is_quick(False))
    lead = np.diff(np.log(score(str(tmp_path), texts).probabilities.astype(np.float64)))
    model.classifier.bias.data[1] -= float(np.median(lead))  # half of the texts on either side
    model.save_pretrained(tmp_path)
    labels = {}
    for quick, rounding in ((False, 0.0), (True, 0.0), (True, scoring.ROUNDING)):
        monkeypatch.setattr(probing, "bfloat16_is_quick", _is_quick(quick))
        monkeypatch.setattr(scoring, "ROUNDING", rounding)
        labels[quick, rounding] = score(str(tmp_path), texts).predicted
    exact, hasty, careful = labels.values()
    assert len(set(exact)) == 2
    assert hasty != exact, "without a second look rounding decides"
    assert careful == exact


OTHER_LAYOUTS = {
    # A layer norm of its own where BERT has none.
    "roberta-prelayernorm": RobertaPreLayerNormConfig(pad_token_id=0, **SIZES),
    # Query, key and value of different widths.
    "mobilebert": MobileBertConfig(embedding_size=32, intra_bottleneck_size=16, **SIZES),
    # Its first edition cannot compute in bfloat16.
    "deberta": DebertaConfig(**SIZES),
    "mpnet": MPNetConfig(pad_token_id=0, **SIZES),
}


@pytest.mark.parametrize("family", OTHER_LAYOUTS)
@pytest.mark.parametrize("quick", [True, False])
def test_a_model_that_only_resembles_bert_answers_as_plain_transformers_has_it(
    family: str, quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = deepcopy(OTHER_LAYOUTS[family])
    config.num_labels, config.initializer_range = 3, 0.2
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    texts = [text for text, _ in rows(20, seed=4)]
    monkeypatch.setattr(probing, "bfloat16_is_quick", _is_quick(quick))
    found = score(str(tmp_path), texts)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with torch.inference_mode():
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        expected = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.softmax(-1)
    np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=0.05 if quick else 1e-4)


def test_a_model_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_config(
        CanineConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
    ).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(TrainingError, match="no word vectors"):
        score(str(tmp_path), ["a"])
