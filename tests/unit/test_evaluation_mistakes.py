"""What a version gets wrong, from its answers and from the evaluation of a release that kept none."""

from pathlib import Path

from include.evaluation.answers import Answer, write_answers
from include.evaluation.metrics import MAX_TEXT, cut, measure
from include.evaluation.mistakes import MISTAKES, MOST_TEXTS, Mistakes


def answer(text: str, label: str, predicted: str, confidence: float = 0.5, model: str = "challenger") -> Answer:
    return Answer(text, label, True, model, "", "s3://job", predicted, confidence, text)


def test_confusions_are_kept_with_the_texts_that_the_model_was_surest_about(tmp_path: Path) -> None:
    wrong = [answer(f"text {number}", "card", "refund", number / 10) for number in range(8)]
    others = [answer("x", "card", "card"), answer("y", "refund", "card"), answer("z", "card", "x", model="champion")]
    write_answers([*wrong, *others], tmp_path)
    found = Mistakes.model_validate_json((tmp_path / MISTAKES).read_text())
    assert (found.rows, found.right) == (10, 1)
    assert [(pair.label, pair.predicted, pair.count) for pair in found.pairs] == [
        ("card", "refund", 8),
        ("refund", "card", 1),
    ]
    assert [one.text for one in found.pairs[0].texts] == ["text 7", "text 6", "text 5", "text 4", "text 3"]
    assert len(found.pairs[0].texts) == MOST_TEXTS


def test_an_evaluation_of_an_earlier_release_tells_of_confusions_without_texts() -> None:
    metrics = measure(["card", "card", "card", "refund"], ["card", "refund", "refund", "other"])
    found = Mistakes.of_evaluation({"challenger": {"metrics": metrics.model_dump()}})
    assert (found.rows, found.right) == (4, 1)
    assert [(pair.label, pair.predicted, pair.count, pair.texts) for pair in found.pairs] == [
        ("card", "refund", 2, []),
        ("refund", "other", 1, []),
    ]


def test_long_texts_are_cut() -> None:
    assert cut("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert cut("x" * (MAX_TEXT + 1)) == f"{'x' * MAX_TEXT}…"
