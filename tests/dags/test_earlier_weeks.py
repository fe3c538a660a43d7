"""Near-duplicates of what came in earlier weeks, with signatures in a real PostgreSQL."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from include import lake
from include.ingestion.near_duplicates import NearDuplicates, band_keys, band_rows
from include.ingestion.quality import hash_of
from include.ingestion.sources import Quality
from include.orchestration import curating, earlier_weeks, etl_steps
from include.settings import settings
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

CASES = Path(__file__).parents[1] / "unit" / "quality" / "across_weeks.csv"
OFF = {"missing": False, "encoding": False, "boilerplate": False, "length": False}
TABLES = ["example_sightings", "training_examples", "example_signatures", "etl_sightings_x", "etl_curated_x",
          "etl_changes_x"]  # fmt: skip


@pytest.fixture(autouse=True)
def warehouse(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))
    monkeypatch.setenv("BERT_BUCKET", f"file://{tmp_path}")
    settings.cache_clear()
    yield engine
    settings.cache_clear()
    with engine.begin() as connection:
        for name in TABLES:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))


def merge(week: str, day: str, texts: list[tuple[str, str]], **quality: Any) -> dict[str, Any]:
    """A week's rows through the rules and into the table; what was left out and kept."""
    schema = curating.schema_of(*curating.CURATED)
    rows = [(hash_of(text), text, label, "desk", f"{day}T00:00:00Z", 0, 1) for text, label in texts]
    named = [dict(zip(schema.names, row, strict=True)) for row in rows]
    curating.write_rows("etl_sightings_x", [pa.Table.from_pylist(named, schema)])
    uri = lake.quarantine("x", f"{week}.parquet")
    found = etl_steps.clean(Quality(**(OFF | quality)), "etl_sightings_x", "etl_curated_x", uri, week)
    curating.settle("etl_curated_x", "etl_changes_x", week, ["desk"], "newest")
    curating.insert_new("etl_changes_x")
    return found


def texts(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return {text for (text,) in connection.execute(sa.text("SELECT text FROM training_examples"))}


def cases() -> list[dict[str, str]]:
    with CASES.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_left_out_is_almost_a_text_of_an_earlier_week(warehouse: Engine) -> None:
    found = cases()
    assert len(found) == 200
    merge("2026-W01", "2026-01-02", [(one["text"], "a") for one in found if one["week"] == "1"])
    before = texts(warehouse)
    later = [one for one in found if one["week"] == "2"]
    facts = merge("2026-W02", "2026-01-09", [(one["text"], "a") for one in later])
    left_out = {one["text"] for one in later} - texts(warehouse)
    broken = {one["text"] for one in later if one["broken"] == "1"}
    assert len(left_out & broken) / len(left_out) >= 0.95
    assert len(left_out & broken) / len(broken) >= 0.9
    assert facts["left_out"] == {"across_weeks": len(left_out)}
    assert facts["kept"] == len(later) - len(left_out)
    (example, *_) = facts["examples"]["across_weeks"]
    assert "which came in an earlier week" in example[1]
    assert before <= texts(warehouse)
    # Once more, and with signatures that lie there already.
    assert merge("2026-W02", "2026-01-09", [(one["text"], "a") for one in later])["left_out"] == facts["left_out"]
    # A week that is done again later is not measured by what came after it.
    again = merge("2026-W01", "2026-01-02", [(one["text"], "a") for one in found if one["week"] == "1"])
    assert again["left_out"] == {}


@pytest.mark.parametrize("off", ["near_duplicates", "across_weeks"])
def test_a_rule_that_is_off_looks_at_no_earlier_week(warehouse: Engine, off: str) -> None:
    text = "I was charged twice for the same order last week and nobody has answered"
    merge("2026-W01", "2026-01-02", [(text, "a")])
    assert merge("2026-W02", "2026-01-09", [(f"{text}!", "a")], **{off: False})["left_out"] == {}


def test_the_same_text_and_one_with_another_label_or_number_stay(warehouse: Engine) -> None:
    text = "I was charged 20 euros for the same order last week and nobody has answered"
    merge("2026-W01", "2026-01-02", [(text, "a")])
    later = [(text.upper(), "a"), (f"{text}!", "b"), (text.replace("20", "30"), "a"), ("short", "a")]
    assert merge("2026-W02", "2026-01-09", later)["left_out"] == {}
    with warehouse.connect() as connection:
        seen = connection.execute(
            sa.text("SELECT MAX(seen_at) FROM example_sightings WHERE text ILIKE '%20%' AND label = 'a'")
        )
        assert seen.scalar_one() == "2026-01-09T00:00:00Z"


@pytest.mark.parametrize("near_duplicates", [True, False])
def test_what_is_mended_and_left_out_leaves_the_other_rows_as_they_are(
    warehouse: Engine, near_duplicates: bool
) -> None:
    came = ["Es wäre für alle besser", "Es wÃ¤re fÃ¼r alle besser", "n/a", "nothing is wrong with this text"]
    on = {"encoding": True, "missing": True, "near_duplicates": near_duplicates}
    facts = merge("2026-W01", "2026-01-02", [(text, "a") for text in came], **on)
    left_out = {"missing": 1, "near_duplicate": 1} if near_duplicates else {"missing": 1}
    assert (facts["left_out"], facts["mended"]) == (left_out, {"encoding": 1})
    assert facts["kept"] == len(came) - sum(left_out.values())
    with warehouse.connect() as connection:
        found = connection.execute(sa.text("SELECT text, copies FROM example_sightings ORDER BY text")).fetchall()
    assert found == [(came[0], 1 if near_duplicates else 2), (came[3], 1)]
    assert texts(warehouse) == {came[0], came[3]}


def test_another_similarity_makes_other_signatures(warehouse: Engine) -> None:
    assert [band_rows(one) for one in (0.95, 0.85, 0.7, 0.6)] == [8, 8, 4, 2]
    text = "the quick brown fox jumps over the lazy dog and runs away into the dark wood"
    merge("2026-W01", "2026-01-02", [(text, "a")])
    near = NearDuplicates(0.6)
    assert near.seen([("0f", text.replace("dark", "deep"), "a")]) == [""]
    assert list(earlier_weeks.almost_known(near, "2026-W02", "etl_signatures_x")) == [0]
    with warehouse.connect() as connection:
        assert connection.execute(sa.text("SELECT DISTINCT band_rows FROM example_signatures")).scalar_one() == 2


def test_signatures_are_of_each_text_alone() -> None:
    some = ["a text of some words", "another one, with ü and 東京 and 🙂 in it", "a text of some words", "short"]
    together = band_keys(some, 8)
    assert (together[0] == together[2]).all()
    assert [band_keys([text], 8)[0].tolist() for text in some[:3]] == together[:3].tolist()
    assert band_keys([], 8).shape == (0, 16)
