import io
import json

import pandas as pd
import pytest

from include.datasets.reading import UnreadableFileError, read_rows


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def pairs(frame: pd.DataFrame) -> list[tuple[object, object]]:
    return list(zip(frame["text"], frame["label"], strict=True))


def test_csv_with_quotes_newlines_and_a_byte_order_mark() -> None:
    rows = read_rows('\ufefftext,label\n"a, b\nc",x\nd,y\n'.encode(), "f.csv")
    assert pairs(rows) == [("a, b\nc", "x"), ("d", "y")]
    assert list(rows["row"]) == [1, 2]


def test_semicolons_and_tabs_separate_too() -> None:
    assert pairs(read_rows(b"label;text\nx;a, b\n", "f.csv")) == [("a, b", "x")]
    assert pairs(read_rows(b"label\ttext\nx\ta\n", "f.csv")) == [("a", "x")]


def test_utf16_from_a_spreadsheet_is_read() -> None:
    assert pairs(read_rows("text,label\nüä,x\n".encode("utf-16"), "f.csv")) == [("üä", "x")]


def test_columns_are_found_by_usual_names_or_named() -> None:
    assert pairs(read_rows(b"id,Review,Category\n1,good,pos\n", "f.csv")) == [("good", "pos")]
    assert pairs(read_rows(b"id,q,a\n1,good,pos\n", "f.csv", "q", "a")) == [("good", "pos")]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "f.csv", "empty"),
        (b"%PDF-1.7 text,label", "f.csv", "a PDF"),
        (b"PK\x03\x04xx", "f.csv", "Excel"),
        (b"<html><body>hello</body></html>", "f.csv", "no text column"),
        (b"\x00\x01\x02" * 50, "f.csv", "binary"),
        (b"a,b\n1,2\n", "f.csv", "BERT_TEXT_COLUMN"),
        (b"text,label\n", "f.csv", "no rows"),
        (b"hello\nworld\n", "f.jsonl", "JSON object"),
        (b"PAR1 not really", "f.parquet", "not Parquet"),
        (b"text,label\na,b\n", "f.parquet", "not Parquet"),
        (b"text,label\na,b\n", "f.xlsx", "no Excel workbook"),
        (b"text,label\na,b\n", "noending", "only .csv"),
    ],
)
def test_what_is_no_table_says_why(content: bytes, name: str, message: str) -> None:
    with pytest.raises(UnreadableFileError, match=message):
        read_rows(content, name)


def test_a_named_column_that_is_missing_is_said_beside_the_nearest_one() -> None:
    with pytest.raises(
        UnreadableFileError, match=r"'Betref', which was named, is not there \(do you mean 'Betreff'\?\)"
    ):
        read_rows(b"Betreff,label\na,b\n", "f.csv", "Betref")


def test_where_there_are_none_of_the_named_columns_the_usual_names_count() -> None:
    assert pairs(read_rows(b"text,label\na,x\n", "f.csv", "Betreff", "Team")) == [("a", "x")]
    assert pairs(read_rows(b"Betreff,team\na,x\n", "f.csv", "Betreff", "Team")) == [("a", "x")]


def test_rows_with_too_many_cells_are_marked_and_the_others_kept() -> None:
    rows = read_rows(b"text,label\na,b,c\nd,e\n", "f.csv")
    assert list(rows["rule"]) == ["wrong_column_count", ""]


def test_undecodable_bytes_stay_in_their_row() -> None:
    rows = read_rows("text,label\nü,y\n".encode() + b"caf\xe9,x\n", "f.csv")
    assert rows["text"][1] == "caf\udce9"
    assert pairs(rows)[0] == ("ü", "y")


def test_a_megabyte_cell_is_read() -> None:
    rows = read_rows(b"text,label\n" + b"a" * 1_000_000 + b",x\n", "f.csv")
    assert len(rows["text"][0]) == 1_000_000


def test_jsonl_keeps_values_and_marks_broken_lines() -> None:
    lines = [json.dumps({"text": "a", "label": 1}), "{broken", json.dumps({"label": "y"}), json.dumps([1])]
    rows = read_rows("\n".join(lines).encode(), "f.jsonl")
    assert list(rows["rule"]) == ["", "not_json", "", "not_json"]
    assert pairs(rows)[0] == ("a", 1)
    assert rows["text"][2] is None


def test_one_odd_json_line_does_not_name_the_column() -> None:
    lines = [json.dumps({"message": f"m{at}", "label": "x"}) for at in range(3)] + [
        json.dumps({"text": "odd", "label": "x"})
    ]
    assert list(read_rows("\n".join(lines).encode(), "f.jsonl")["text"]) == ["m0", "m1", "m2", None]


def test_a_number_too_long_to_read_is_a_row_that_is_no_json() -> None:
    content = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "x", "id": ' + b"1" * 5000 + b"}\n"
    assert list(read_rows(content, "f.jsonl")["rule"]) == ["", "not_json"]


def test_parquet_bytes_are_text_and_long_numbers_keep_their_digits() -> None:
    rows = read_rows(parquet(text=[b"caf\xc3\xa9", b"caf\xe9"], label=[9007199254740993, 2]), "f.parquet")
    assert list(rows["text"]) == ["café", "caf\udce9"]
    assert rows["label"][0] == 9007199254740993


def test_parquet_is_read() -> None:
    assert pairs(read_rows(parquet(text=["a", None], label=["x", "y"]), "f.parquet")) == [("a", "x"), (None, "y")]
