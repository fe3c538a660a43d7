"""Classifiers that OpenVINO runs answer as torch does, or are not used."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from include.training import scoring
from include.training.fast import openvino
from include.training.model import build_classifier
from include.training.scoring import Scorer, score
from tests.unit.training_models import CONFIGS, TOPICS, rows, save_bert, save_tokenizer

LABELS = sorted(TOPICS)
TEXTS = [text for text, _ in rows(60, seed=4)] + ["", "word", "very " * 500]


@pytest.fixture
def never_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them is quicker on a tiny model is chance."""
    _take(monkeypatch, 9, 1, 2)


def _take(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """What torch takes, and then what was compiled."""
    monkeypatch.setattr(openvino, "_seconds", lambda model, sides: dict(zip(sides, seconds, strict=False)))


def saved(folder: Path, *, mean_pooling: bool = True) -> str:
    """A random classifier."""
    base = save_bert(folder / "base", mean_pooling=mean_pooling)
    for part in build_classifier(str(base), LABELS, "tiny"):
        part.save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.mark.usefixtures("never_slower")
@pytest.mark.parametrize("mean_pooling", [True, False])
def test_it_answers_as_torch_does_alone_and_together(mean_pooling: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path, mean_pooling=mean_pooling)
    scorer = Scorer(folder, compiled=True)
    assert scorer.precisions
    expected = score(folder, TEXTS).probabilities
    np.testing.assert_allclose(scorer.probabilities(scorer.tokenize(TEXTS)), expected, atol=1e-3)
    alone = [scorer.probabilities(scorer.tokenize([text]))[0] for text in TEXTS]
    np.testing.assert_allclose(np.stack(alone), expected, atol=1e-3)


@pytest.mark.usefixtures("never_slower")
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_whatever_the_layers_the_labels_are_torchs(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = deepcopy(CONFIGS[family])
    config.num_labels, config.initializer_range = len(LABELS), 0.2
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    scorer = Scorer(str(tmp_path), compiled=True)
    assert scorer.precisions
    found = scorer.probabilities(scorer.tokenize(TEXTS))
    np.testing.assert_array_equal(found.argmax(-1), score(str(tmp_path), TEXTS).probabilities.argmax(-1))


@pytest.mark.usefixtures("never_slower")
def test_very_many_texts_are_worth_compiling_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "COMPILE_FROM", 10)
    scorer = Scorer(saved(tmp_path))
    few = scorer.probabilities(scorer.tokenize(TEXTS[:9]))
    assert not scorer.precisions
    many = scorer.probabilities(scorer.tokenize(TEXTS[:10]))
    assert scorer.precisions
    np.testing.assert_allclose(many[:9], few, atol=1e-3)


def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)


def _other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "MOST_APART", -1.0)


def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    _take(monkeypatch, 1, 9, 9)


def _unknown_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise RuntimeError("no conversion rule for aten::new")

    monkeypatch.setattr(openvino, "_compiled", fail)


@pytest.mark.parametrize("trouble", [_not_installed, _other_answers, _later, _unknown_layer])
def test_torch_answers_where_it_is_of_no_use(trouble: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble(monkeypatch)
    scorer = Scorer(saved(tmp_path), compiled=True)
    assert not scorer.precisions
    assert scorer.probabilities(scorer.tokenize(TEXTS[:3])).shape == (3, len(scorer.labels))


def test_close_calls_of_bfloat16_are_decided_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _take(monkeypatch, 9, 1, 2)
    monkeypatch.setattr(openvino, "bfloat16_is_quick", lambda device: True)
    scorer = Scorer(saved(tmp_path), compiled=True)
    assert [one.bfloat16 for one in scorer._quick] == [True, False]
    expected = score(str(tmp_path / "model"), TEXTS).predicted
    found = scorer.probabilities(scorer.tokenize(TEXTS))
    assert [scorer.labels[one] for one in found.argmax(-1)] == expected


def test_bfloat16_that_saves_little_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _take(monkeypatch, 9, 2, 2.1)
    monkeypatch.setattr(openvino, "bfloat16_is_quick", lambda device: True)
    scorer = Scorer(saved(tmp_path), compiled=True)
    assert [one.bfloat16 for one in scorer._quick] == [False]


@pytest.mark.parametrize(("off", "used"), [(2, True), (0, False)])
def test_bfloat16_is_judged_by_the_labels_that_may_win(
    off: int, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label far behind is computed as roughly as the others, and decides nothing."""
    model = AutoModelForSequenceClassification.from_pretrained(saved(tmp_path, mean_pooling=False)).eval()

    def compiled(converted: Any, precision: str) -> Any:
        def answer(inputs: list[Any]) -> list[Any]:
            logits = model(*map(torch.from_numpy, inputs)).logits
            place = logits.topk(3).indices[:, off : off + 1]
            return [(logits.scatter_add(1, place, -torch.ones(len(logits), 1))).numpy()]

        return answer if precision == "bf16" else lambda inputs: [model(*map(torch.from_numpy, inputs)).logits.numpy()]

    monkeypatch.setattr(openvino, "_compiled", compiled)
    found = openvino._agreeing(model, None, ("f32", "bf16"))
    assert [one.precision for one in found] == (["bf16", "f32"] if used else ["f32"])


def test_what_is_the_quickest_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _take(monkeypatch, 9, 2, 2.1)
    first = Scorer(saved(tmp_path), compiled=True)
    _take(monkeypatch, 1, 9, 9)
    second = Scorer(str(tmp_path / "model"), compiled=True, precisions=first.precisions)
    assert second.precisions == first.precisions == ("f32",)


def test_nobody_is_told_that_it_is_used(tmp_path: Path) -> None:
    program = (
        "import sys; from include.training.scoring import Scorer; Scorer(sys.argv[1], compiled=True); "
        "print('openvino' in sys.modules, 'openvino_telemetry' in sys.modules)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, saved(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"HOME": str(tmp_path)})
    assert done.stdout.split() == ["True", "False"]
    assert not (tmp_path / "intel").exists()


def test_one_setting_does_without(tmp_path: Path, set_env: Any) -> None:
    set_env(BERT_FAST="false")
    assert not Scorer(saved(tmp_path), compiled=True).precisions
