"""A model is tried as the server would load it, in a process that may be killed."""

import shutil
from pathlib import Path

import pytest

from include.evaluation.evaluate import Evaluation
from include.evaluation.gates import Decision
from include.orchestration.serving_trial import attempt, with_trial

pytest_plugins = ["tests.unit.registry_services"]

TEXTS = ["where is my card", "a refund", "lost my card", "card", "refund", "my refund is lost"]


def test_a_model_that_serves_passes_and_it_is_told_what_it_takes(tiny_bert: Path) -> None:
    gate = attempt(str(tiny_bert), TEXTS)
    assert gate.passed, gate.explanation
    assert "the server loads it in" in gate.explanation
    assert "MiB at most" in gate.explanation


def test_a_model_that_cannot_be_loaded_fails_with_the_reason(tiny_bert: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    (broken / "model.safetensors").write_bytes(b"damaged")
    gate = attempt(str(broken), TEXTS)
    assert not gate.passed
    assert gate.explanation.startswith("the server cannot load it: ")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("BERT_SERVING_MEMORY_MIB", "1", "needs more than 1 MiB"),
        ("BERT_SERVING_LOAD_SECONDS", "0.0001", "does not load it and answer within"),
        ("BERT_SERVING_ANSWER_SECONDS", "0.0000001", "for one text"),
    ],
)
def test_a_model_that_takes_too_much_fails(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, said: str
) -> None:
    monkeypatch.setenv(setting, value)
    gate = attempt(str(tiny_bert), TEXTS)
    assert not gate.passed
    assert said in gate.explanation


def test_a_challenger_that_cannot_be_served_is_rejected_and_its_rows_are_not_to_blame(tmp_path: Path) -> None:
    decision = Decision(promote=True, gates=[], reason="Promoted: it is right.", shown_worse=None, new_anchor=True)
    evaluation = Evaluation.model_construct(decision=decision)
    (tmp_path / "config.json").write_text("{}")
    tried = with_trial(evaluation, str(tmp_path), TEXTS).decision
    assert (tried.promote, tried.new_anchor, tried.shown_worse) == (False, False, False)
    assert tried.reason.startswith("Rejected: serving failed, the server cannot load it: ")
    assert tried.reason.endswith("Otherwise it would do: it is right.")
    refused = Evaluation.model_construct(decision=decision.model_copy(update={"promote": False}))
    assert with_trial(refused, "/nowhere", TEXTS) is refused
