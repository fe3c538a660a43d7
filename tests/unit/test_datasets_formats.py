import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.datasets.reading import UnreadableFileError, json_table, read_rows


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("line", ['{"a":[', '{"a":[' + "0," * 200])
def test_nested_json_that_is_broken_everywhere_is_given_up_in_time(line: str) -> None:
    frame = read_rows(('{"text": "good", "label": "x"}\n{"more":\n' + f"{line}\n" * 20_000).encode(), "f.json")
    assert frame["rule"][0] == ""
    assert set(frame["rule"][1:]) == {"not_json"}


def test_a_line_of_json_that_is_too_long_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_table, "LONGEST_LINE", 2000)
    good = '{"text": "a", "label": "x"}\n'
    frame = read_rows((good + '{"text": "' + "b" * 10_000 + '", "label": "x"}\n' + good * 2).encode(), "f.jsonl")
    assert list(frame["rule"]) == ["", "not_json", "", ""]
    assert len(frame["text"][1]) == json_table.SHOWN


def test_every_other_key_of_an_object_is_kept() -> None:
    lines = ['{"text": "a", "label": "x"}'] * 3 + ['{"text": "b", "label": "x", "lang": "de"}']
    assert list(read_rows("\n".join(lines).encode(), "f.jsonl")["extra"]) == ["", "", "", '{"lang": "de"}']


def test_two_columns_of_one_name_do_not_stop_a_file() -> None:
    table = pa.table(
        [pa.array(["a", "b"]), pa.array(["x", "y"]), pa.array(["p", "q"])], names=["text", "label", "label"]
    )
    frame = read_rows(parquet(table), "f.parquet")
    assert list(frame["label"]) == ["x", "y"]


def test_a_date_that_python_does_not_have_stays_a_number() -> None:
    table = pa.table({"text": ["a"], "label": ["x"], "at": pa.array([10**15], pa.timestamp("ms"))})
    assert read_rows(parquet(table), "f.parquet")["extra"][0] == f'{{"at": {10**15}}}'


def test_a_sheet_of_a_few_bytes_that_spans_millions_of_cells_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", '<sheetData><row><c r="A1"/><c s="1" r="XFD1048576"/></row></sheetData>'
        )
    with pytest.raises(UnreadableFileError, match="spans 17,179,869,184 cells"):
        read_rows(buffer.getvalue(), "f.xlsx")
