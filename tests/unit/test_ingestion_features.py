"""The other columns of a week's rows as numbers, on 200 labelled columns that were made up for this (quality/)."""

import csv
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include import lake, objects
from include.ingestion import features
from include.ingestion.features import UNKNOWN, Encoder, Profile, as_columns, encoder_of, kind_of
from include.orchestration import etl_features

CASES = Path(__file__).parent / "quality" / "features.csv"
STATES = ["open", "closed", "waiting"]


def test_what_gets_numbers_is_what_it_is_taken_for() -> None:
    with CASES.open(encoding="utf-8", newline="") as file:
        cases = [(case["kind"], case["values"].split("|")) for case in csv.DictReader(file)]
    assert len(cases) == 200
    found = [(kind, kind_of(values)) for kind, values in cases]
    taken = [(kind, given) for kind, given in found if given]
    assert sum(kind == given for kind, given in taken) / len(taken) >= 0.95
    wanted = [(kind, given) for kind, given in found if kind]
    assert sum(kind == given for kind, given in wanted) / len(wanted) >= 0.9


def test_numbers_are_scaled_and_what_is_none_among_them_stays_empty() -> None:
    encoder = encoder_of([str(value) for value in (1.5, 2.5, 3.5, 4.5)] * 30 + ["n/a"])
    assert encoder is not None
    given = [encoder.encode(value) for value in ("1.5", "2.5", "3.5", "4.5")]
    numbers = [value for value in given if value is not None]
    assert sum(numbers) == pytest.approx(0)
    assert math.fsum(value**2 for value in numbers) / 4 == pytest.approx(1)
    assert encoder.encode("n/a") is None
    assert encoder.encode("") is None


def test_a_column_of_one_number_is_not_divided_by_nothing() -> None:
    encoder = encoder_of(["7"] * 30)
    assert encoder is not None
    assert encoder.encode("7") == 0


def test_a_code_means_the_same_in_later_weeks() -> None:
    first, second = Profile(), Profile()
    first.see({"state": STATES * 10})
    second.see({"state": ["archived"] * 30 + STATES})
    known = first.encoders({})
    later = second.encoders(known)
    assert known["state"].categories == ["closed", "open", "waiting"]
    assert later["state"].categories == ["closed", "open", "waiting", "archived"]


def test_a_category_for_which_no_code_is_left_is_unknown() -> None:
    full = Encoder(kind="category", categories=[str(number) for number in range(features.MOST_CATEGORIES)])
    full.learn(["more"])
    assert full.encode("more") == UNKNOWN


def test_values_are_text_as_they_came_whatever_json_says() -> None:
    found = as_columns(['{"a": 1.50, "b": "x", "c": null}', "", '{"b": true, "d": {"e": 1}}'])
    assert found == {"a": ["1.5", "", ""], "b": ["x", "", "true"], "c": ["", "", ""], "d": ["", "", '{"e": 1}']}


def test_of_very_many_columns_those_that_came_first_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MOST_COLUMNS", 2)
    profile = Profile()
    profile.see({name: ["1"] * 30 for name in "abc"})
    assert set(profile.samples) == {"a", "b"}


@pytest.fixture
def week(tmp_path: Path, file_lake: str) -> str:
    extras = [
        json.dumps({"state": STATES[number % 3], "price": f"{number}.5", "order": f"{number:06d}"})
        for number in range(60)
    ]
    rows = {
        "text_hash": [f"{number:016x}" for number in range(60)], "source": ["desk"] * 60, "file": ["a.csv"] * 60,
        "row": [str(number) for number in range(60)], "extra": extras,
    }  # fmt: skip
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table(rows), path)
    return path.as_uri()


def test_a_week_is_written_beside_its_texts_and_again_to_the_same(week: str) -> None:
    found = etl_features.encode("weekly_etl", "2026-W01", week, {f"{1:016x}": "mended"})
    assert found["kinds"] == {"state": "category", "price": "number", "order": ""}
    assert found["values"] == 120
    assert found["examples"][0] == ("state: open", "state: 1")
    written = pq.read_table(found["uri"].removeprefix("file://"))
    assert written["text_hash"].to_pylist()[:3] == [f"{0:016x}", "mended", f"{2:016x}"]
    assert written["feature.state"].to_pylist()[:3] == [1, 0, 2]
    assert sum(written["feature.price"].to_pylist()) == pytest.approx(0, abs=1e-9)
    encoders = objects.read_json(lake.features("weekly_etl", "encoders.json"))
    assert etl_features.encode("weekly_etl", "2026-W01", week, {}) == found
    assert objects.read_json(lake.features("weekly_etl", "encoders.json")) == encoders


def test_a_week_without_other_columns_writes_nothing(tmp_path: Path, file_lake: str) -> None:
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table({"extra": ["", ""]}), path)
    found = etl_features.encode("weekly_etl", "2026-W01", path.as_uri(), {})
    assert found == {"kinds": {}, "values": 0, "examples": [], "uri": ""}
    assert not objects.exists(lake.features("weekly_etl", "encoders.json"))
