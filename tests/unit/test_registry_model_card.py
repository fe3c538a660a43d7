from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import yaml

from include.evaluation.evaluate import Context, Evaluation, assess
from include.evaluation.gates import Thresholds
from include.registry.model_card import accuracy_interval, cell, model_card
from include.training.job import Hyperparameters, Job, Result

THRESHOLDS = Thresholds(
    min_accuracy=0.7, max_accuracy_drop=0.02, gate_confidence=0.99, min_class_recall=0.5, min_class_rows=10
)
LABELS = ["a|b", "c", "<i>"]


@dataclass
class Scores:
    labels: list[str]
    probabilities: Any

    @property
    def predicted(self) -> list[str]:
        return [self.labels[column] for column in self.probabilities.argmax(axis=1)]


def job(base_model: str = "google-bert/bert-base-uncased") -> Job:
    return Job(
        dataset_uri="s3://bert/datasets/d1",
        model_name="support",
        base_model=base_model,
        hyperparameters=Hyperparameters(epochs=2, learning_rate=5e-5, batch_size=8, max_length=64, seed=1),
        mlflow_tracking_uri="http://localhost:5000",
        mlflow_experiment="e",
    )


RESULT = Result(
    job_id=job().job_id,
    model_uri="s3://bert/jobs/j/model",
    mlflow_run_id="f" * 32,
    best_epoch=2,
    metrics={"validation_macro_f1": 0.91},
    history=[],
    labels=[*LABELS, "unmeasured"],
    rows={"train": 100, "validation": 10},
    seconds={},
    versions={"torch": "2.13.0"},
)


def evaluation() -> Evaluation:
    labels = [*(LABELS * 12)[:33], "c"]
    scores = Scores(LABELS, np.eye(3)[[LABELS.index(label) for label in labels[:-1]] + [0]])
    context = Context(model_name="support", dataset_id="d1")
    return assess(["text"] * 34, labels, ("new", scores), None, THRESHOLDS, context=context)


def test_the_header_is_yaml_with_the_scores_and_the_base_model() -> None:
    card = model_card(job(), RESULT, evaluation(), "3")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == "google-bert/bert-base-uncased"
    assert header["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.9706}
    assert "# support version 3" in card


@pytest.mark.parametrize("base_model", ["/home/me/model", "s3://bert/base", "models:/support@champion"])
def test_a_base_model_that_is_no_hub_id_stays_out_of_the_header(base_model: str) -> None:
    assert "base_model" not in yaml.safe_load(model_card(job(base_model), RESULT, evaluation()).split("---\n")[1])


def test_the_card_says_what_was_not_measured_and_where_to_load_from(file_lake: str) -> None:
    card = model_card(job(), RESULT, evaluation(), "3")
    assert "Not in the golden set at all, so not measured: unmeasured." in card
    assert 'mlflow.pyfunc.load_model("models:/support@champion")' in card
    assert 'pipeline("text-classification", model="model")("a text")' in card
    assert "code.zip" not in card.split("With transformers alone")[1]
    assert 'sys.path.insert(0, "model/code.zip")' in model_card(job(), RESULT, evaluation(), "3", mean_pooled=True)
    assert "Most often confused: c called a\\|b (1 rows)" in card
    assert "| a\\|b | 11 |" in card
    assert "95 % interval 0.851\u20130.995" in card
    for placeholder in ("TODO", "More information", "{{", "None"):
        assert placeholder not in card


def test_a_reason_that_quotes_labels_is_shown_as_it_is() -> None:
    found = evaluation()
    decision = found.decision.model_copy(update={"reason": "Rejected: class <img src=x> and [a](http://b) fell"})
    card = model_card(job(), RESULT, found.model_copy(update={"decision": decision}))
    assert r"Rejected: class \<img src=x\> and \[a\](http://b) fell" in card


def test_the_card_names_labels_that_were_renamed() -> None:
    found = evaluation()
    context = found.context.model_copy(update={"label_mapping": {"C|": "c"}})
    card = model_card(job(), RESULT, found.model_copy(update={"context": context}))
    assert ", unmeasured. Labels that were renamed or merged: C\\| → c.\n\n## Data\n" in card
    assert "renamed" not in model_card(job(), RESULT, found)
    assert ", unmeasured.\n\n## Data\n" in model_card(job(), RESULT, found)


def test_the_interval_is_wilsons() -> None:
    assert accuracy_interval(evaluation()) == pytest.approx((0.8508, 0.9948), abs=1e-3)


def test_a_cell_cannot_break_out_of_its_table() -> None:
    assert cell("a|b\n<i>") == r"a\|b \<i\>"
