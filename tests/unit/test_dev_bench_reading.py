import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dev.bench import page, reading, reading_pace
from include.datasets.reading import UnreadableFileError
from include.datasets.reading.table import Wanted

CASE = {"rows": 24, "used": 22, "rejected": {"wrong_quotes": 1, "label_missing": 1}, "labels": ["b", "a"]}


@pytest.mark.parametrize("rows", [23, 24])
def test_a_reader_may_leave_out_rows_that_cannot_be_read(rows: int) -> None:
    assert reading.is_right(CASE, reading.Outcome(rows, 22, ["a", "b"]))


@pytest.mark.parametrize(
    "outcome",
    [
        reading.Outcome(22, 22, ["a", "b"]),
        reading.Outcome(25, 22, ["a", "b"]),
        reading.Outcome(24, 23, ["a", "b"]),
        reading.Outcome(24, 22, ["a", "b "]),
    ],
)
def test_other_rows_or_labels_are_wrong(outcome: reading.Outcome) -> None:
    assert not reading.is_right(CASE, outcome)


def test_labels_count_only_where_they_are_expected() -> None:
    assert reading.is_right({"rows": 2, "used": 2}, reading.Outcome(2, 2, ["anything"]))


def test_of_a_file_that_is_no_table_no_row_may_be_used() -> None:
    case = {"rows": 1, "used": 0, "rejected": {"unreadable_file": 1}}
    assert reading.is_right(case, reading.Outcome(0, 0, []))
    assert reading.is_right(case, reading.Outcome(24, 0, []))
    assert not reading.is_right(case, reading.Outcome(24, 24, ["a"]))


def test_labels_and_tools_are_counted_apart_from_reading() -> None:
    about = {path: reading.subject(path) for path in ("dialects/label.csv", "tools/a.json", "03-label-spellings/a.csv")}
    assert list(about.values()) == ["reading", "labels and tools", "labels and tools"]


def test_the_right_encoding_is_the_one_that_a_case_names() -> None:
    found = [
        reading.right_encoding(path, {"warnings": warnings})
        for path, warnings in (
            ("encodings/utf16.csv", []),
            ("encodings/a.csv", ["read as Mac Roman"]),
            ("05-cp1252-class-vanishes/a.csv", ["1252"]),
            ("encodings/utf8_after_windows.csv", []),
            ("encodings/some_bad_bytes.csv", []),
            ("dialects/tabs.tsv", []),
        )
    ]
    assert found == ["utf-16", "mac_roman", "cp1252", "utf-8", "utf-8", None]


def test_text_and_label_are_found_by_their_usual_names() -> None:
    columns = {"id": [1, 2], "Text": ["hello", b"caf\xe9"], "label": [float("nan"), 1.0]}
    assert reading.labelled_rows(columns, Wanted()) == [
        {"text": "hello", "label": None},
        {"text": "caf\ufffd", "label": 1.0},
    ]
    with pytest.raises(UnreadableFileError):
        reading.labelled_rows({"text;label": []}, Wanted())


def test_a_readers_rows_are_judged_as_an_upload_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {number}" for number in range(24)]
    labels = ["a", "b"] * 12
    (tmp_path / "dialects").mkdir()
    (tmp_path / "dialects/a.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True))
    )
    case = {"rows": 24, "used": 24, "labels": ["a", "b"]}
    (tmp_path / "expected.json").write_text(json.dumps({"dialects/a.csv": case}))
    raised = ValueError("not readable")

    def fails(path: Path) -> Any:
        raise raised

    monkeypatch.setattr(
        reading.readers,
        "OTHERS",
        {
            "good": lambda path: {"text": texts, "label": labels},
            "garbled": lambda path: {"text": [f"?{text}" for text in texts], "label": labels},
            "short": lambda path: {"text": texts[1:], "label": labels[1:]},
            "failing": fails,
        },
    )
    verdicts = reading.judge_case(tmp_path, "dialects/a.csv", case)
    assert verdicts == {
        "good": "right",
        "garbled": "other texts",
        "short": "wrong",
        "failing": "no rows",
        "this project": "right",
    }


def test_ratios_are_of_the_medians_of_rows_per_second() -> None:
    samples = {
        "pandas.read_csv": [{"rows": 100, "seconds": 2.0}, {"rows": 100, "seconds": 2.0}],
        "clevercsv": [{"rows": 10, "seconds": 1.0}],
    }
    assert reading.ratios(samples) == {"pandas.read_csv": 1.0, "clevercsv": 0.2}


def test_made_up_rows_are_quoted_unique_and_partly_not_ascii(tmp_path: Path) -> None:
    reading_pace.write_rows(tmp_path / "rows.csv", 2_000)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["text"] for row in rows}) == len(rows) == 2_000
    assert all("," in row["text"] for row in rows)
    assert len({row["label"] for row in rows}) == reading_pace.LABELS
    assert 0.01 < sum(not row["text"].isascii() for row in rows) / 2_000 < 0.03


def test_the_page_counts_right_cases_by_folder_and_subject() -> None:
    cases = [
        {"path": "dialects/a.csv", "about": "reading", "readers": {"x": "right", "y": "wrong"}},
        {"path": "encodings/b.csv", "about": "reading", "readers": {"x": "other texts", "y": "no rows"}},
        {"path": "labels/c.csv", "about": "labels and tools", "readers": {"x": "wrong", "y": "right"}},
    ]
    found = page.case_counts(cases)
    assert list(found["x"]) == ["dialects", "encodings", "reading", "labels and tools"]
    assert found["x"]["reading"] == {"right": 2, "other_texts": 1, "all": 2}
    assert found["y"]["labels and tools"]["right"] == 1
    assert found["y"]["encodings"]["right"] == 0


def test_the_page_shows_both_tables_and_warns_of_a_busy_machine() -> None:
    readers = {
        "pandas": "wrong",
        "DuckDB": "right",
        "clevercsv": "other texts",
        "pyarrow": "right",
        reading.OURS: "right",
    }
    machine = page.machine() | {"versions": {"pandas": "2"}}
    facts = {"when": "now", "code": "git:abc", "machine": machine}
    cases = {
        **facts,
        "folder": "tests/cases",
        "cases": [{"path": "dialects/a.csv", "about": "reading", "readers": readers}],
        "encodings": [{"path": "encodings/mac.csv", "encoding": "mac_roman", "guess": "cp869", "right": False}],
    }
    without_pace = page.render(None, None, None, {"cases": cases})
    assert "| clevercsv | 1 of 1 (1) | 1 of 1 (1) | 0 of 0 |" in without_pace
    assert (
        "0 of 1 files about encodings rightly; the others: encodings/mac.csv is mac_roman, its guess cp869"
        in without_pace
    )
    assert "How fast they are is not measured yet." in without_pace
    sample = {"rows": 10, "seconds": 2.0, "cpu_seconds": 1.0, "peak_mib": 300, "others": 0.5}
    samples = {side: [sample, sample | {"seconds": 4.0}] for side in reading_pace.SIDES}
    pace = {**facts, "command": "make bench-reading ROWS=10", "rows": 10, "gib": 0.1, "samples": samples}
    written = page.render(None, None, None, {"cases": cases, "pace": pace | {"ratios": reading.ratios(samples)}})
    assert "| validate_files | 10 | 3.0 | 1.0 | 300 | 1.00× | 2.0, 4.0 |" in written  # noqa: RUF001
    assert "busy machine" in written
