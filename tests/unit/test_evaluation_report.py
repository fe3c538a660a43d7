import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.evaluation import charts
from include.evaluation.evaluate import Context, Evaluation, PersonsDecision, ShownFile, assess, hash_rows
from include.evaluation.gates import Thresholds
from include.evaluation.metrics import find_flips, measure, most_confused
from include.evaluation.report import write_report

THRESHOLDS = Thresholds(
    min_accuracy=0.7, max_accuracy_drop=0.02, gate_confidence=0.99, min_class_recall=0.5, min_class_rows=10
)
HISTORY = [
    {"epoch": 1.0, "train_loss": 1.2, "validation_loss": 1.0, "validation_accuracy": 0.6, "validation_macro_f1": 0.5},
    {"epoch": 2.0, "train_loss": 0.6, "validation_loss": 0.7, "validation_accuracy": 0.9, "validation_macro_f1": 0.9},
]


@dataclass
class Scores:
    labels: list[str]
    probabilities: Any

    @property
    def predicted(self) -> list[str]:
        return [self.labels[column] for column in self.probabilities.argmax(axis=1)]


def scores(labels: list[str], names: list[str], wrong_every: int) -> Scores:
    """A model that knows ``names`` and errs in every n-th row, and wherever it does not know the label."""
    probabilities = np.full((len(labels), len(names)), 0.1, dtype=np.float32)
    for row, label in enumerate(labels):
        column = names.index(label) if label in names else 0
        probabilities[row, (column + (row % wrong_every == 0)) % len(names)] = 0.9
    return Scores(names, probabilities)


def evaluation(classes: int, rows: int, champion_lacks: int = 0, texts: list[str] | None = None) -> Evaluation:
    names = [f"class_{index:03d}" for index in range(classes)]
    labels = [names[row % classes] for row in range(rows)]
    return assess(
        texts or [f"text {row}" for row in range(rows)],
        labels,
        ("s3://bert/jobs/1/model", scores(labels, names, 23)),
        ("s3://bert/models/m/1", scores(labels, names[: classes - champion_lacks], 19)),
        THRESHOLDS,
        context=Context(
            model_name="m",
            history=HISTORY,
            best_epoch=2,
            files=[ShownFile(key="incoming/ü+%.csv", rows_in=12, used=9, rejected=3, by_rule={"empty_text": 3})],
        ),
    )


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second each; what is asked is said in words."""
    for picture in ("learning_curve", "confusion_matrix", "intervals"):
        monkeypatch.setattr(charts, picture, lambda *_: "")


def test_metrics_of_a_small_table_by_hand() -> None:
    metrics = measure(["a", "a", "b", "b"], ["a", "b", "b", "c"])
    assert metrics.accuracy == 0.5
    assert metrics.labels == ["a", "b", "c"]
    assert metrics.confusion == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert [(score.label, score.recall, score.support) for score in metrics.classes] == [("a", 0.5, 2), ("b", 0.5, 2)]
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_the_most_confused_pairs_come_first() -> None:
    metrics = measure(["a"] * 4 + ["b"] * 4, ["b", "b", "a", "a", "a", "b", "b", "b"])
    assert [(pair.label, pair.predicted, pair.count, pair.share) for pair in most_confused(metrics)] == [
        ("a", "b", 2, 0.5),
        ("b", "a", 1, 0.25),
    ]


@pytest.mark.usefixtures("no_pictures")
def test_a_page_that_asks_a_person_says_how_to_answer_and_then_what_was_answered(tmp_path: Path) -> None:
    found = evaluation(2, 60)
    manual = THRESHOLDS.model_copy(update={"promotion": "manual"})
    decision = found.decision.model_copy(update={"promote": True, "reason": "Awaiting approval: 57 are right."})
    context = found.context.model_copy(update={"dag_run_id": "run <7>"})
    asked = found.model_copy(update={"thresholds": manual, "decision": decision, "context": context})
    page = write_report(asked, tmp_path).read_text()
    assert (asked.verdict, asked.reason) == ("awaiting_approval", decision.reason)
    assert '<div class="verdict">Awaiting approval</div>' in page
    assert 'make reject RUN="run &lt;7&gt;" NAME=… REASON=…' in page
    for promote, verdict, word in ((True, "promoted", "approved"), (False, "rejected", "rejected")):
        said = PersonsDecision(promote=promote, name="Ada <b>", reason="it is <i>fine</i>.")
        answered = asked.model_copy(update={"by_person": said})
        page = write_report(answered, tmp_path).read_text()
        assert (answered.verdict, answered.reason) == (
            verdict,
            f"{verdict.capitalize()}: {word} by Ada <b>: it is <i>fine</i>. 57 are right.",
        )
        assert f"<p>{word} by Ada &lt;b&gt;: it is &lt;i&gt;fine&lt;/i&gt;. 57 are right.</p>" in page
        assert "make reject" not in page


def test_flips_are_the_rows_where_one_of_both_is_right() -> None:
    flips = find_flips(
        ["fixed", "broken", "both right", "both wrong"],
        ["a", "a", "a", "a"],
        [("b", 0.6), ("a", 0.9), ("a", 0.9), ("b", 0.8)],
        [("a", 0.7), ("b", 0.5), ("a", 0.9), ("c", 0.8)],
    )
    assert (flips.fixed_count, flips.broken_count) == (1, 1)
    assert flips.fixed[0].text == "fixed"
    assert (flips.broken[0].champion_confidence, flips.broken[0].challenger_confidence) == (0.9, 0.5)


def test_counts_are_of_all_flips_though_few_are_kept_and_long_texts_are_cut() -> None:
    flips = find_flips(["x" * 20_000] * 500, ["a"] * 500, [("b", 0.5)] * 500, [("a", 0.5)] * 500)
    assert (flips.fixed_count, len(flips.fixed), len(flips.fixed[0].text)) == (500, 100, 401)


def test_an_evaluation_survives_json() -> None:
    result = evaluation(7, 140)
    assert Evaluation.model_validate_json(result.model_dump_json()) == result.model_copy(update={"answers": []})
    assert "answers" not in result.model_dump()
    assert result.golden_rows == 140
    assert len(result.golden_hash) == 64


def test_the_golden_hash_is_of_the_rows_not_of_their_order() -> None:
    assert hash_rows(["x", "y"], ["a", "b"]) == hash_rows(["y", "x"], ["b", "a"])
    assert hash_rows(["x", "y"], ["a", "b"]) != hash_rows(["x", "y"], ["b", "a"])


def test_a_champion_that_lacks_a_class_is_wrong_there_and_no_more() -> None:
    result = evaluation(7, 140, champion_lacks=1)
    assert result.champion is not None
    assert result.champion.unknown_labels == ["class_006"]
    assert result.challenger.unknown_labels == []
    assert {score.label: score.recall for score in result.champion.metrics.classes}["class_006"] == 0
    assert result.decision.promote


def test_texts_and_labels_must_be_of_one_length() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 labels"):
        assess(["x", "y"], ["a"], ("uri", scores(["a"], ["a", "b"], 9)), None, THRESHOLDS)


@pytest.mark.parametrize(("classes", "rows"), [(2, 60), (7, 140), (77, 1001), (150, 1500)])
def test_the_report_is_one_file_for_any_number_of_classes(classes: int, rows: int, tmp_path: Path) -> None:
    page = write_report(evaluation(classes, rows, champion_lacks=classes > 2), tmp_path / "report").read_text()
    assert "incoming/ü+%.csv" in page
    assert "empty text 3" in page
    assert page.count("<svg") == 3
    assert ("Most confused pairs" in page) == (classes > 12)
    outside = [part for part in page.split('"') if part.startswith(("http:", "https:", "//"))]
    assert set(outside) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of XML, not requests"
    for name in ("learning_curve.png", "confusion_matrix.png", "intervals.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_escapes_texts_and_labels(tmp_path: Path) -> None:
    labels = ["<b>$x$", "日本 & co"] * 30
    result = assess(
        ["<script>alert(1)</script>"] * 60,
        labels,
        ("new", scores(labels, sorted(set(labels)), 11)),
        ("old", scores(labels, sorted(set(labels)), 7)),
        THRESHOLDS,
    )
    page = write_report(result, tmp_path).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_the_report_of_a_first_model_without_history_says_so(tmp_path: Path) -> None:
    labels = ["a", "b"] * 20
    result = assess([str(row) for row in range(40)], labels, ("new", scores(labels, ["a", "b"], 9)), None, THRESHOLDS)
    page = write_report(result, tmp_path).read_text()
    assert "no champion yet" in page
    assert "left no history" in page
    assert not (tmp_path / "learning_curve.png").exists()


def test_the_report_tells_rows_of_this_upload_the_anchor_and_unjudged_classes_apart(tmp_path: Path) -> None:
    labels = ["a", "b"] * 40
    known = ["a", "b", "<never seen>"]
    result = assess(
        [str(row) for row in range(80)],
        labels,
        ("new", scores(labels, known, 9)),
        ("old", scores(labels, ["a", "b"], 11)),
        THRESHOLDS,
        anchor=("oldest", scores(labels, ["a", "b"], 7)),
        established=[row < 60 for row in range(80)],
        context=Context(anchor_version="1"),
    )
    page = write_report(result, tmp_path).read_text()
    for words in (
        "Established rows",
        "of 60 right",
        "Rows of this upload",
        "of 20 right",
        "10 new",
        "beside the anchor",
        "v1 · oldest",
        "Not judged, for they have no golden rows: &lt;never seen&gt;",
        "golden rows that came with this upload",
        "Four times in five these 60 rows would show a drop of",
    ):
        assert words in page, words
    plain = write_report(evaluation(classes=3, rows=60), tmp_path).read_text()
    assert "Rows of this upload" not in plain
    assert "Not judged" not in plain


def test_an_evaluation_of_an_earlier_version_can_be_read_and_shown(tmp_path: Path) -> None:
    stored = json.loads(evaluation(classes=3, rows=60).model_dump_json())
    for name in ("anchor", "established", "new", "new_by_class"):
        del stored[name]
    for name in ("new_anchor", "comparisons", "not_judged"):
        del stored["decision"][name]
    for name in ("anchor_confidence", "when_unsure"):
        del stored["thresholds"][name]
    page = write_report(Evaluation.model_validate_json(json.dumps(stored)), tmp_path).read_text()
    assert page.count("<svg") == 2


def test_the_same_evaluation_gives_the_same_page(tmp_path: Path) -> None:
    result = evaluation(7, 140)
    assert write_report(result, tmp_path / "one").read_bytes() == write_report(result, tmp_path / "two").read_bytes()


@pytest.mark.usefixtures("no_pictures")
def test_the_report_shows_warnings_and_why_a_file_could_not_be_read(tmp_path: Path) -> None:
    found = evaluation(classes=3, rows=60)
    file = ShownFile(
        key="incoming/<b>.csv", rows_in=1, used=0, rejected=1, reason="it is a <PDF>", warnings=["read as Mac Roman"]
    )
    context = found.context.model_copy(update={"files": [file], "warnings": ["'Login' and 'login' look <alike>"]})
    page = write_report(found.model_copy(update={"context": context}), tmp_path).read_text()
    for words in ("read as Mac Roman", "look &lt;alike&gt;", "it is a &lt;PDF&gt;", "incoming/&lt;b&gt;.csv"):
        assert words in page
    assert "Warnings" not in write_report(found, tmp_path).read_text()


def test_a_report_that_is_written_again_draws_nothing_again(tmp_path: Path) -> None:
    found = evaluation(2, 60)
    first = write_report(found, tmp_path).read_text()
    pictures = {path: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert len(pictures) == 3
    for path in tmp_path.glob("*.png"):
        path.unlink()
    named = found.model_copy(update={"context": found.context.model_copy(update={"challenger_version": "7"})})
    again = write_report(named, tmp_path).read_text()
    assert "v7 · " in again
    assert "v7 · " not in first
    assert not list(tmp_path.glob("*.png")), "a picture was drawn"
    assert all(path.read_text() in again for path in pictures)
