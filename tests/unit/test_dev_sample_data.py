from pathlib import Path

import pandas as pd
import pytest

from dev import sample_data
from include.datasets.checks import check_rows
from include.datasets.reading import UnreadableFileError, read_rows


def judged(upload: sample_data.Upload, labels: set[str]) -> dict[str, int]:
    rows = read_rows(upload.content, upload.name)
    checked = check_rows(rows, allowed_labels=labels, max_characters=20_000, min_rows_per_label=5)
    return checked.loc[checked["rule"] != "", "rule"].value_counts().to_dict()


def test_made_up_messages_are_different_and_the_same_each_time() -> None:
    rows = sample_data.messages(1_400)
    assert len(rows) == rows["text"].nunique() >= 1_390
    assert rows["label"].nunique() == len(sample_data.TOPICS)
    pd.testing.assert_frame_equal(rows, sample_data.messages(1_400))


def test_the_seven_files_hold_what_they_say() -> None:
    rows = sample_data.messages(1_000)
    good, more, bad, no_table, swapped, shuffled, news = sample_data.uploads(rows)
    labels = set(rows["label"]) - news.labels
    assert len(labels) == rows["label"].nunique() - 1
    assert judged(good, labels) == judged(more, labels) == judged(shuffled, labels) == judged(swapped, labels) == {}
    assert judged(news, labels) == {"label_unknown": news.rows}
    assert judged(bad, labels) == bad.spoilt | {"label_unknown": bad.waiting}
    used = [good.rows, more.rows, swapped.rows, news.rows, bad.rows - sum(bad.spoilt.values()) - bad.waiting]
    assert sum(used) == len(rows)
    assert no_table.rows == 1
    with pytest.raises(UnreadableFileError, match="a PDF"):
        read_rows(no_table.content, no_table.name)


def test_swapped_labels_are_on_new_texts_and_more_than_the_right_ones() -> None:
    rows = sample_data.messages(1_000).set_index("text")["label"]
    good, more, _, _, upload, *_ = sample_data.uploads(sample_data.messages(1_000))
    known = pd.concat([read_rows(one.content, one.name) for one in (good, more)])
    swapped = read_rows(upload.content, upload.name)
    assert not set(swapped["text"]) & set(known["text"])
    assert (swapped.set_index("text")["label"] != rows[swapped["text"]]).all()
    counts = known["label"].value_counts()
    assert all(n > counts[label] for label, n in rows[swapped["text"]].value_counts().items())
    assert rows[swapped["text"]].nunique() == 2


def test_shuffled_labels_are_on_known_texts_and_mostly_wrong() -> None:
    good, more, _, _, _, shuffled, _ = (
        read_rows(upload.content, upload.name) if upload.story != "no table" else None
        for upload in sample_data.uploads(sample_data.messages(1_000))
    )
    known = pd.concat([good, more]).set_index("text")["label"]
    assert set(shuffled["text"]) == set(known.index)
    assert (shuffled.set_index("text")["label"] != known).mean() > 0.7


def test_rows_are_counted_from_the_file_itself() -> None:
    assert sample_data.count_rows("f.csv", b'text,label\n"two\nlines",a\nb,c\n\n') == 2
    assert sample_data.count_rows("f.jsonl", b'{"a": 1}\n\n{"a": 2}\n') == 2


def test_a_users_file_is_read_whatever_its_columns_are_called(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    sample_data.messages(1_100).set_axis(["frage", "abteilung"], axis=1).to_csv(path, index=False)
    rows = sample_data.labelled_file(path, "frage", "abteilung")
    assert len(rows) == len(sample_data.messages(1_100))
    good = sample_data.uploads(rows, "frage", "abteilung")[0]
    assert good.content.startswith(b"frage,abteilung\n")
    with pytest.raises(UnreadableFileError, match="BERT_TEXT_COLUMN"):
        sample_data.labelled_file(path)


def test_a_users_file_that_is_too_small_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    sample_data.messages(50).to_csv(path, index=False)
    with pytest.raises(ValueError, match="50 different labelled texts"):
        sample_data.labelled_file(path)
