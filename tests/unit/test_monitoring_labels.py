"""What people say of answers, what has changed, what is worth a label, and how far off an estimate is."""

import csv
import io
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from include import lake, objects
from include.monitoring import labels
from include.monitoring.accuracy import Accuracy, held_out_error
from include.monitoring.assessment import Assessment
from include.monitoring.domain import as_csv, differ, rows_around, worth_labelling
from include.monitoring.drift import Comparison
from include.monitoring.estimate import Estimate, accuracy_checks
from include.serving import feedback
from include.serving.prediction_log import Said, as_table, folder

DAY = date(2026, 3, 30)
AT = datetime(2026, 3, 30, 12, tzinfo=UTC)
OLD = "where is my card and why is it late"
LIST = b'{"version": "2", "prediction_id": ["a"], "label": "card"}'
NO_TIME = b'{"prediction_id": "a", "label": "card", "version": "2", "at": "yesterday"}'
NEW = "the parcel was left at a neighbour who is away"


def answered(model: str, texts: list[str], *, version: str = "2", at: datetime = AT, label: int = 0) -> list[str]:
    """Rows in the log; their ids."""
    import pyarrow.parquet as pq

    ids = [f"{at:%Y%m%d}-{uuid4().hex}" for _ in texts]
    shares = np.tile(np.roll(np.array([0.9, 0.1], np.float32), label), (len(texts), 1))
    said = Said(
        model, version, at, ids, texts, [False] * len(texts), ["card", "refund"], shares, 1.0, [None] * len(texts)
    )
    sink = io.BytesIO()
    pq.write_table(as_table([said], "full"), sink)
    objects.write_bytes(f"{folder(model, f'{at:%Y-%m-%d}')}{uuid4().hex}.parquet", sink.getvalue())
    return ids


def some(words: str, count: int, seed: int = 0) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(words.split(), k=8)) for _ in range(count)]


def test_live_accuracy_is_of_a_versions_answers_by_labels_that_were_asked_for_at_random(file_lake: str) -> None:
    answered("m", some(OLD, 40))
    answered("m", some(OLD, 20), version="1")
    answered("m", some(OLD, 20), at=AT - timedelta(days=2))
    name, asked = feedback.sample("m", 80, 3, AT)
    for number, one in enumerate(asked):
        given = {"prediction_id": one.prediction_id, "label": "card" if number % 4 else "refund", "sample": name}
        feedback.keep("m", given | {"who": "ada"}, AT + timedelta(days=1, seconds=number))
    found = labels.live_accuracy("m", "2", AT, AT + timedelta(days=1))
    assert found.texts == 40
    assert 0.6 <= found.value <= 0.9
    assert found.low < found.value < found.high
    mine = asked[0].prediction_id
    feedback.keep("m", {"prediction_id": mine, "label": "card", "sample": name}, AT + timedelta(days=2))
    again = labels.live_accuracy("m", "2", AT - timedelta(days=30), AT + timedelta(days=9))
    assert again.texts == 60, "labelled twice, an answer counts once"
    assert labels.live_accuracy("m", "3", AT, AT + timedelta(days=1)).texts == 0


def test_the_error_rate_is_of_answers_that_were_corrected(file_lake: str) -> None:
    ids = answered("m", some(OLD, 10))
    others = answered("m", some(OLD, 10), version="1")
    for key, label in ((ids[0], "refund"), (ids[1], "card"), (ids[2], "refund"), (others[0], "refund")):
        feedback.keep("m", {"prediction_id": key, "label": label}, AT + timedelta(hours=1))
    found = labels.error_rate("m", "2", AT, AT + timedelta(hours=6))
    assert (found.answers, found.corrected, found.value) == (10, 2, 0.2)
    assert labels.error_rate("m", "3", AT, AT + timedelta(hours=6)).value is None
    assert feedback.waiting("m") == 4
    feedback.send_back("m", "today", AT.date())
    assert feedback.waiting("m") == 0


@pytest.mark.parametrize(
    "stray", [b'{"version": "2", "prediction_id": "a", "la', b"", b"\xff\x00", b"[1]", b"{}", LIST, NO_TIME], ids=repr
)
def test_a_stray_file_among_what_people_say_holds_nothing_up(file_lake: str, stray: bytes) -> None:
    objects.write_bytes(lake.feedback("m", f"labelled/date={AT:%Y-%m-%d}/stray.jsonl"), stray)
    if stray != NO_TIME:  # a correction needs none
        objects.write_bytes(lake.feedback("m", f"date={AT:%Y-%m-%d}/stray.jsonl"), stray)
    (key,) = answered("m", [OLD])
    feedback.keep("m", {"prediction_id": key, "label": "refund"}, AT)
    assert labels.live_accuracy("m", "2", AT, AT + timedelta(hours=1)).texts == 0
    assert labels.error_rate("m", "2", AT, AT + timedelta(hours=1)).corrected == 1
    assert feedback.waiting("m") == 1


def test_the_words_and_the_texts_that_are_new_are_named() -> None:
    found = differ(some(OLD, 300), [*some(OLD, 100, 1), *some(NEW, 100, 2)])
    assert found is not None
    assert found.auc > 0.7
    assert {"parcel", "neighbour"} & set(found.words)
    assert len(found.typical) == 10
    assert all(set(text.split()) <= set(NEW.split()) for text in found.typical)
    same = differ(some(OLD, 300), some(OLD, 200, 3))
    assert same is not None
    assert 0.35 < same.auc < 0.65
    assert differ(some(OLD, 300), some(NEW, 49)) is None
    assert differ(["…"] * 60, ["!"] * 60) is None, "no words"


def test_new_texts_of_which_the_model_is_unsure_are_worth_most_and_no_two_are_alike() -> None:
    rows: list[dict[str, Any]] = [
        {"id": str(number), "text": text, "label": "card", "probability": sure}
        for number, (text, sure) in enumerate([(OLD, 0.99), (NEW, 0.99), (f"{NEW}.", 0.4), (NEW + "!", 0.39)])
    ]
    assert [row["id"] for row in worth_labelling(rows, [0.1, 0.9, 0.9, 0.9])] == ["3", "0"]
    assert [row["id"] for row in worth_labelling(rows, None, 1)] == ["3"]
    assert worth_labelling([]) == []
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnop", k=6)) for _ in range(300)]
    texts = some(" ".join(words), 400)
    many = [{"id": str(at), "text": text, "label": "a", "probability": 0.5} for at, text in enumerate(texts)]
    assert len(worth_labelling(many)) == 100
    (line,) = csv.DictReader(io.StringIO(as_csv(rows[:1]).decode("utf-8-sig")))
    assert line == {"text": OLD, "label": "", "predicted": "card", "probability": "0.990", "prediction_id": "0"}


def test_rows_around_a_drift_are_of_the_reference_and_of_the_window_that_alarms(file_lake: str) -> None:
    answered("m", ["before"] * 3, at=AT - timedelta(days=20))
    answered("m", ["between"] * 3, at=AT - timedelta(days=5))
    answered("m", ["now"] * 3, at=AT - timedelta(days=1))
    alarm = Comparison("label mix", 3, 1e-9, 1e-4, 1e-6, "…")
    spans = ((DAY - timedelta(days=30), DAY - timedelta(days=10)), (DAY - timedelta(days=9), DAY))
    before, now = rows_around("m", Assessment((alarm,), *spans, (3, 6), "…"))
    assert [row["text"] for row in before] == ["before"] * 3
    assert [row["text"] for row in now] == ["now"] * 3
    assert rows_around("m", Assessment((), *spans, (3, 6), "…")) == ([], [])


def test_an_estimate_is_as_good_as_the_labels_of_a_confidence_are_alike() -> None:
    dice = np.random.default_rng(0)
    names = dice.choice(["a", "b", "c"], 2_000)
    sure = dice.uniform(0.5, 1, 2_000)
    alike = dice.random(2_000) < sure
    unlike = dice.random(2_000) < np.where(names == "a", sure - 0.4, sure)
    assert held_out_error(sure, alike, list(names)) < 0.02
    assert held_out_error(sure, unlike, list(names)) > 0.04
    assert held_out_error(sure, alike, ["a"] * 2_000) < 0.02, "of one class"
    with pytest.raises(ValueError, match="49 golden rows are too few"):
        held_out_error(sure[:49], alike[:49], list(names[:49]))


def test_an_accuracy_that_is_surely_lower_than_on_the_golden_rows_fails() -> None:
    none = Accuracy(0.5, 0, 1, 0)
    worse = Accuracy(0.7, 0.65, 0.75, 400)
    found = {one.name: one for one in accuracy_checks(Estimate(worse, 0.9, 0.01, "…"), worse)}
    assert {name for name, one in found.items() if one.verdict == "failed"} == {"accuracy.estimated", "accuracy.live"}
    assert found["accuracy.live_low"].value == 0.65
    hidden = {one.name: one for one in accuracy_checks(Estimate(None, 0.9, 0.05, "off by 5 points"), none)}
    assert hidden["accuracy.estimated"].value is None
    assert hidden["accuracy.estimated"].told == "off by 5 points"
    assert hidden["accuracy.live"].verdict == "not_checked"
