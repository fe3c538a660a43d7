import random
from pathlib import Path

import pandas as pd
import pytest

from include.datasets.reading import csv_table, read_rows
from include.datasets.reading.dialect import Dialect
from include.datasets.reading.table import Places

CELLS = ["a", "", "two words", "with, comma", 'with "quotes"', "two\nlines", "é", " blanks ", '"', "\n", ",", "x" * 50]


def written(rows: list[list[str]], rng: random.Random, line_end: str = "\n") -> bytes:
    """Rows as some program might write them: a cell is quoted where it has to be, and sometimes where not."""

    def cell(text: str) -> str:
        needs = any(character in text for character in ',"\n\r')
        return '"' + text.replace('"', '""') + '"' if needs or rng.random() < 0.3 else text

    return "".join(",".join(map(cell, row)) + line_end for row in rows).encode()


def random_rows(rng: random.Random, n: int) -> list[list[str]]:
    # No row of one empty line: a blank line is none.
    return [[rng.choice(CELLS[2:]), rng.choice(CELLS), rng.choice(["x", "y"])] for _ in range(n)]


def pairs(frame: pd.DataFrame) -> list[tuple[object, object]]:
    return list(zip(frame["text"], frame["label"], strict=True))


def test_the_quick_way_and_the_slow_one_give_the_same_rows() -> None:
    rng = random.Random(0)
    dialect, places = Dialect(",", names=("text", "note", "label")), Places(("text", "note", "label"), 0, 2)
    for _ in range(300):
        rows = random_rows(rng, rng.randint(1, 8))
        block = written(rows, rng, rng.choice(["\n", "\r\n"]))
        assert csv_table._clean_end(block, dialect, is_last=True) == len(block)
        quick = csv_table._read_clean(block, dialect, places)
        slow, left = csv_table._read_damaged(block, dialect, places)
        assert quick is not None
        assert left == b""
        assert pairs(quick) == [(row[1], row[2]) for row in slow] == [(row[0], row[2]) for row in rows]
        assert list(quick["extra"]) == [row[5] for row in slow]


@pytest.mark.parametrize("size", [16, 64, 300])
def test_where_a_block_ends_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(size)
    rows = random_rows(rng, 60)
    damaged = written(rows[:20], rng) + b'"lost, quote,x\n' + written(rows[20:], rng)
    for content, lost in ((written(rows, rng), 0), (damaged, 1)):
        monkeypatch.setattr(csv_table, "BLOCK", size)
        frame = read_rows(b"text,note,label\n" + content, "f.csv")
        good = frame[frame["rule"] == ""]
        assert pairs(good) == [(row[0], row[2]) for row in rows]
        assert len(frame) - len(good) == lost
        assert list(frame["row"]) == list(range(1, len(frame) + 1))


def test_a_missing_quote_loses_one_line_and_no_more() -> None:
    content = 'text,label\n"first",x\n"lost,x\n"a, b",y\n"several\nlines",y\n'
    frame = read_rows(content.encode(), "f.csv")
    assert list(frame["rule"]) == ["", "wrong_quotes", "", ""]
    assert pairs(frame)[2:] == [("a, b", "y"), ("several\nlines", "y")]
    assert "quote is missing" in frame["reason"][1]


def test_a_quote_that_nobody_closes_does_not_swallow_the_file() -> None:
    content = 'text,label\n"open,x\n' + "".join(f'"text, {at}",y\n' for at in range(5000))
    frame = read_rows(content.encode(), "f.csv")
    assert frame["rule"].value_counts().to_dict() == {"": 5000, "wrong_quotes": 1}


def test_a_long_line_without_an_end_is_read_in_time() -> None:
    frame = read_rows(b'text,label\n"' + b'a "" ' * 400_000 + b'",x\n' + b'"b"c,y\n', "f.csv")
    assert list(frame["rule"]) == ["", "wrong_quotes"]


def test_a_file_without_a_header_says_so() -> None:
    content = '"please help me out, will you",x\n"the lamp is broken",y\n"so is the key",x\n'
    with pytest.raises(
        ValueError, match=r"no header: its first line is data \(\"please help me out, will you\", \"x\"\)"
    ):
        read_rows(content.encode(), "f.csv")


def test_other_columns_are_kept_as_json_both_ways(tmp_path: Path) -> None:
    clean = 'id,text,label,lang\n1,a,x,"de ""at"""\n2,b,y,\n'
    ragged = "id,text,label,lang\n1,a,x\n2,b,y,en,\n"
    assert list(read_rows(clean.encode(), "f.csv")["extra"]) == ['{"id": "1", "lang": "de \\"at\\""}', '{"id": "2"}']
    assert list(read_rows(ragged.encode(), "f.csv")["extra"]) == ['{"id": "1"}', '{"id": "2", "lang": "en"}']


def test_a_row_without_an_end_is_skipped_without_being_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "BLOCK", 1000)
    monkeypatch.setattr(csv_table, "LONGEST_RECORD", 4000)
    frame = read_rows(b'text,label\n"a",x\n"' + b"b" * 50_000 + b'"c,y\n"d",y\n', "f.csv")
    assert list(frame["rule"]) == ["", "wrong_quotes", ""]
    assert len(frame["text"][1]) == csv_table.SHOWN
    assert pairs(frame)[2] == ("d", "y")


def test_odd_bytes_in_another_column_can_be_looked_at_both_ways() -> None:
    clean = b'text,label,note\n"\xc3\xa9",x,a\xff\nb,y,c\n'
    ragged = b'text,label,note\n"\xc3\xa9",x,a\xff\nb,y\n'
    for content in (clean, ragged):
        assert read_rows(content, "f.csv")["extra"][0] == '{"note": "a\\udcff"}'


def test_a_backslash_that_escapes_nothing_stays() -> None:
    frame = read_rows(b'text,label\n"open C:\\new, say \\"hi\\"",x\n"b\\\\",y\n', "f.csv")
    assert pairs(frame) == [('open C:\\new, say "hi"', "x"), ("b\\", "y")]


def test_apostrophes_here_and_there_are_no_quotes() -> None:
    frame = read_rows(b"text,label\n'lovely',a\n'tis good,b\nnever mind,c\nall the boys',a\nfine,b\n", "f.csv")
    assert list(frame["text"]) == ["'lovely'", "'tis good", "never mind", "all the boys'", "fine"]


def test_a_column_without_a_name_is_neither_text_nor_label() -> None:
    for content in (b",text,label\n0,a,x\n1,b,y\n", b"text,,label\na,,x\nb,,y\n", b"text,label,,\na,x,,\nb,y,,\n"):
        assert pairs(read_rows(content, "f.csv")) == [("a", "x"), ("b", "y")]


def test_columns_in_the_path_are_kept_and_its_label_comes_before_a_less_usual_one() -> None:
    frame = read_rows(b"text,topic\na,other\n", "incoming/label=x/lang=de/part-0.csv")
    assert pairs(frame) == [("a", "x")]
    assert frame["extra"][0] == '{"lang": "de", "topic": "other"}'
