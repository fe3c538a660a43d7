"""Two real (tiny, untrained) BERTs scored by the project's own scorer."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from include.evaluation.answers import read_answers, write_answers
from include.evaluation.changed import changes
from include.evaluation.evaluate import Context, Evaluation, evaluate
from include.evaluation.gates import Thresholds
from include.training.scoring import Scores, score

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "card", "refund", "lost", "late", "where", "is", "my", "a"]
TEXTS = [f"{first} {second} {third}" for first in WORDS[5:] for second in WORDS[5:] for third in WORDS[5:8]]
THRESHOLDS = Thresholds(
    min_accuracy=0.7, max_accuracy_drop=0.02, gate_confidence=0.99, min_class_recall=0.5, min_class_rows=10
)


def tiny_bert(folder: Path, labels: list[str], seed: int) -> str:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, initializer_range=1.0, **sizes, **names)
    )
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return str(folder)


def test_two_models_are_scored_on_the_same_rows_and_the_worse_one_is_rejected(tmp_path: Path) -> None:
    champion = tiny_bert(tmp_path / "champion", ["card", "refund", "delivery"], 1)
    challenger = tiny_bert(tmp_path / "challenger", ["card", "refund", "delivery"], 2)
    truth = score(champion, TEXTS).predicted  # so the champion is always right
    context = Context(model_name="m", champion_version="1")
    found = evaluate(TEXTS, truth, challenger, champion, THRESHOLDS, golden_hash="frozen", context=context)
    assert found.champion is not None
    assert found.flips is not None
    assert found.champion.metrics.accuracy == 1
    assert not found.decision.promote
    assert found.flips.fixed_count == 0
    assert found.flips.broken_count == round((1 - found.challenger.metrics.accuracy) * len(TEXTS))
    assert (found.golden_hash, found.golden_rows, found.context) == ("frozen", len(TEXTS), context)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found.model_copy(update={"answers": []})


def test_the_same_model_against_itself_is_promoted(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "model", ["card", "refund", "delivery"], 1)
    found = evaluate(TEXTS, score(model, TEXTS).predicted, model, model, THRESHOLDS)
    assert found.decision.promote
    assert len(found.golden_hash) == 64


def test_three_models_answer_in_one_job_and_each_answer_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["card", "refund", "delivery"]
    champion, anchor, challenger = (tiny_bert(tmp_path / name, labels, seed) for seed, name in enumerate("xyz"))
    truth = score(anchor, TEXTS).predicted
    asked: list[str] = []

    def counted(uri: str, texts: Sequence[str]) -> Scores:
        asked.append(uri)
        return score(uri, texts)

    monkeypatch.setattr("include.training.scoring.score", counted)
    established = [row % 4 > 0 for row in range(len(TEXTS))]
    keys = [f"row {row}" for row in range(len(TEXTS))]
    found = evaluate(
        TEXTS,
        truth,
        challenger,
        champion,
        THRESHOLDS,
        anchor_uri=anchor,
        established=established,
        keys=keys,
        context=Context(champion_version="2", anchor_version="1"),
    )
    assert sorted(asked) == sorted([challenger, champion, anchor])
    assert [one.against for one in found.decision.comparisons] == ["champion", "anchor"]
    assert found.established is not None
    assert found.new is not None
    assert (found.established.rows, found.established.anchor) == (sum(established), sum(established))
    assert (found.new.rows, found.new.anchor) == (len(TEXTS) - sum(established),) * 2
    assert sum(found.new_by_class.values()) == found.new.rows
    path = write_answers(found.answers, tmp_path / "reports")
    kept = read_answers(path, "1")
    assert (list(kept["key"]), list(kept["predicted"])) == (keys, list(truth))
    assert list(kept["established"]) == established
    again = changes(*(read_answers(path, one).to_dict("records") for one in ("challenger", "2")))
    assert found.flips is not None
    assert (again["fixed"], again["broken"]) == (found.flips.fixed_count, found.flips.broken_count)


def test_a_model_that_knows_a_label_by_its_old_name_is_right_with_it(tmp_path: Path) -> None:
    old = tiny_bert(tmp_path / "old", ["billing", "refund", "delivery"], 1)
    new = tiny_bert(tmp_path / "new", ["invoices", "refund", "delivery"], 1)
    truth = score(new, TEXTS).predicted
    context = Context(label_mapping={"billing": "invoices"})
    found = evaluate(TEXTS, truth, new, old, THRESHOLDS, context=context)
    assert found.champion is not None
    assert found.flips is not None
    assert (found.champion.metrics.accuracy, found.champion.unknown_labels) == (1, [])
    assert (found.flips.fixed_count, found.flips.broken_count) == (0, 0)
    assert found.decision.promote
    assert not found.decision.new_anchor, "a new name is no change of labels that begins the anchor anew"
    assert {answer.predicted for answer in found.answers} <= {"invoices", "refund", "delivery"}
    path = write_answers(found.answers, tmp_path / "now")
    before = evaluate(TEXTS, score(old, TEXTS).predicted, old, old, THRESHOLDS)
    answers = (read_answers(path, "challenger"), read_answers(write_answers(before.answers, tmp_path), "champion"))
    renamed = changes(*(one.to_dict("records") for one in answers), context.label_mapping)
    assert renamed["rows"] == len(TEXTS)


def test_a_model_is_right_with_any_of_the_labels_that_were_merged(tmp_path: Path) -> None:
    old = tiny_bert(tmp_path / "old", ["billing", "bills", "delivery"], 1)
    new = tiny_bert(tmp_path / "new", ["invoices", "delivery"], 2)
    context = Context(label_mapping={"billing": "invoices", "bills": "invoices"})
    truth = ["delivery" if label == "delivery" else "invoices" for label in score(old, TEXTS).predicted]
    found = evaluate(TEXTS, truth, new, old, THRESHOLDS, context=context)
    assert found.champion is not None
    assert (found.champion.labels, found.champion.metrics.accuracy) == (["invoices", "delivery"], 1)
    assert not found.decision.new_anchor


def test_an_anchor_that_is_the_champion_answers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_bert(tmp_path / "model", ["card", "refund", "delivery"], 1)
    truth = score(model, TEXTS).predicted
    asked: list[str] = []
    monkeypatch.setattr("include.training.scoring.score", lambda uri, texts: asked.append(uri) or score(uri, texts))
    found = evaluate(TEXTS, truth, model, model, THRESHOLDS, anchor_uri=model)
    assert (len(asked), found.anchor) == (1, None)
    assert [one.against for one in found.decision.comparisons] == ["champion"]


def test_a_model_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(TEXTS, ["card"] * len(TEXTS), f"file://{tmp_path}/nowhere", None, THRESHOLDS)
