"""Rejected rows come back as a file that can be mended and uploaded, and files are looked at first: real S3."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from dev.__main__ import _files_in
from dev.uploads import PIPELINE, look, write_rejected
from include import lake, objects
from include.datasets.intake import Plan, Source, validate_files
from include.datasets.reading import read_rows
from tests.scenarios.conftest import Bucket

ODD = 'it\'s "quoted", with; a\nline break and ü'
FILE = f'text,label\n"{ODD.replace(chr(34), chr(34) * 2)}",\n,billing\n=1+1,\ngood one,billing\ngood one,billing\n'


@pytest.fixture
def stack(s3: Bucket) -> Any:
    return SimpleNamespace(env={"BERT_BUCKET": s3.name}, s3=s3.client, airflow_url="http://localhost:8080")


def run(run_id: str, **files: bytes) -> dict[str, Any]:
    """Takes files in as the run validate_data would, and leaves its report."""
    sources = []
    for name, content in files.items():
        key = f"incoming/{name.replace('_', '.')}"
        uri = objects.write_bytes(lake.claims(run_id, name.replace("_", ".")), content)
        sources.append(Source(batch_id=run_id, key=key, uri=uri))
    plan = Plan(run_id=run_id, model_name="m", sources=sources, parent_dataset_id=None)
    intake = validate_files(plan)
    report = {"run_id": run_id, "rows": intake.rows, "files": [file.model_dump() for file in intake.files]}
    objects.write_json(lake.report(PIPELINE, run_id, "run.json"), report)
    return report


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows are enough to be judged."""
    from include.settings import settings

    monkeypatch.setenv("BERT_GOLDEN_MIN_ROWS", "1")
    settings.cache_clear()


@pytest.mark.usefixtures("enough")
def test_rejected_rows_come_back_as_a_file_that_can_be_mended_and_uploaded(stack: Any, tmp_path: Path) -> None:
    good = "".join(f"row {at},{'a' if at % 2 else 'b'}\n" for at in range(40))
    run("first", a_csv=(FILE + good).encode(), b_csv=b"Betreff,Team\nx,y\n")
    run("second", c_csv=b"text,label\n" + good.encode())
    found = write_rejected(stack, "", tmp_path)
    assert found.run_id == "first", "the newest that rejected any"
    (broken,) = found.unreadable
    assert "Betreff" in broken["reason"]
    written = pd.read_csv(found.path, dtype=str, keep_default_na=False)
    assert list(written.columns) == ["file", "row", "text", "label", "rule", "reason"]
    assert set(written["file"]) == {"incoming/a.csv"}
    assert len(written) == sum(found.by_rule.values())
    assert list(written["rule"])[-1] == "duplicate", "it needs no mending, so it comes last"
    assert {ODD, "=1+1", ""} <= set(written["text"])
    for columns in ((), ("text", "label")):
        rows = read_rows(found.path.read_bytes(), found.path.name, *columns)
        assert list(rows["text"].fillna("")) == list(written["text"])
        assert set(rows["rule"]) == {""}, "what stands beside text and label disturbs nobody"


@pytest.mark.usefixtures("enough")
def test_a_run_can_be_named_and_one_that_is_not_there_is(stack: Any, tmp_path: Path) -> None:
    good = "".join(f"row {at},{'a' if at % 2 else 'b'}\n" for at in range(40)).encode()
    with pytest.raises(FileNotFoundError, match="no run has rejected anything yet"):
        write_rejected(stack, "", tmp_path)
    odd = "manual__2026-01-01T00:00:00+00:00 it's"
    run(odd, a_csv=b"text,label\n,a\n" + good)
    run("other", a_csv=b"text,label\n,a\n,b\n" + good)
    run("clean", a_csv=b"text,label\n" + good)
    assert sum(write_rejected(stack, odd, tmp_path).by_rule.values()) == 1
    assert sum(write_rejected(stack, "", tmp_path).by_rule.values()) == 2
    with pytest.raises(FileNotFoundError, match="the run clean rejected nothing"):
        write_rejected(stack, "clean", tmp_path)
    with pytest.raises(FileNotFoundError, match="no run nobody has left a report; the runs stand at http"):
        write_rejected(stack, "nobody", tmp_path)


def write(folder: Path, content: str) -> Path:
    (folder / "my file.csv").write_text(content)
    return folder / "my file.csv"


def test_a_file_is_looked_at_before_it_is_uploaded(tmp_path: Path) -> None:
    found = look(write(tmp_path, "text,label\na,x\nb,y\nc,y\n"), "incoming/f.csv", {})
    assert (found.unreadable, found.told, found.warnings) == ("", ["3 rows, 2 labels: y, x"], [])
    found = look(write(tmp_path, "Betreff,Team\na,x\n"), "incoming/f.csv", {})
    assert 'no text column and no label column among "Betreff", "Team"' in found.unreadable
    named = {"BERT_TEXT_COLUMN": "Betreff", "BERT_LABEL_COLUMN": "Team"}
    assert look(write(tmp_path, "Betreff,Team\na,x\n"), "incoming/f.csv", named).unreadable == ""
    found = look(write(tmp_path, "text,label\na,x\nb,y,z,!\nc,y\nd,\n"), "incoming/f.csv", {})
    assert [line.split(" (")[0] for line in found.warnings] == [
        "1 of 4 rows will be rejected: wrong_column_count",
        "1 of 4 rows will be rejected: label_missing",
    ]
    assert "(row 2: " in found.warnings[0]
    mapped = {"BERT_LABEL_MAPPING": '{"x": "z"}'}
    found = look(write(tmp_path, "text,label\na,x\na,z\nc,y\nd,y\n"), "incoming/f.csv", mapped)
    assert found.told == ["4 rows, 2 labels: y, z"], "so the pipeline counts them"
    assert [line.split(":")[1].split()[0] for line in found.warnings] == ["duplicate"], "and no contradiction"


def test_a_folder_is_uploaded_with_the_columns_in_its_paths(tmp_path: Path) -> None:
    (tmp_path / "out" / "label=x").mkdir(parents=True)
    for name in ("_SUCCESS", "label=x/part-0.csv", "label=x/.part-0.csv.crc"):
        (tmp_path / "out" / name).write_text("text\na\n")
    (found,) = _files_in(tmp_path / "out")
    assert found[1] == "out/label=x/part-0.csv"
    assert look(found[0], f"incoming/{found[1]}", {}).told == ["1 rows, 1 labels: x"]
