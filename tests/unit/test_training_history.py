import pytest

from include.training import history


def _train(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "loss": loss, "learning_rate": 1e-4, "epoch": step / 4}


def _evaluation(step: int, macro_f1: float) -> dict[str, float]:
    return {"step": step, "epoch": step / 4, "eval_loss": 1.0, "eval_accuracy": 0.5, "eval_macro_f1": macro_f1}


def test_train_loss_is_the_mean_over_the_epochs_steps_however_often_it_was_logged() -> None:
    seldom = history.epochs([_train(4, 2.5), _evaluation(4, 0.1), _train(8, 1.0), _evaluation(8, 0.2)])
    often = history.epochs([_train(1, 4.0), _train(4, 2.0), _evaluation(4, 0.1), _train(8, 1.0), _evaluation(8, 0.2)])
    assert [epoch["train_loss"] for epoch in seldom] == pytest.approx([2.5, 1.0])
    assert seldom == often
    assert [epoch["epoch"] for epoch in seldom] == [1.0, 2.0]


def test_best_is_the_first_of_equals() -> None:
    found = history.epochs([_evaluation(step, score) for step, score in ((4, 0.3), (8, 0.5), (12, 0.5))])
    assert history.best_step(found) == 8


def test_best_of_nothing() -> None:
    assert history.best([]) is None
    assert history.best_step([]) == 0


@pytest.mark.parametrize(("patience", "stops"), [(0, False), (1, True), (2, True), (3, False)])
def test_patience_counts_epochs_since_the_best(patience: int, stops: bool) -> None:
    found = history.epochs([_evaluation(step, score) for step, score in ((4, 0.5), (8, 0.4), (12, 0.5))])
    assert history.out_of_patience(found, patience) is stops
