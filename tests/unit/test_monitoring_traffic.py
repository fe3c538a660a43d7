"""A champion's days out of the prediction log, on real Parquet in S3: counted, kept, and scored again."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from include import lake, objects
from include.monitoring import drift, traffic
from include.monitoring.assessment import Alarm, assess, begins, ends, reference_size
from include.monitoring.days import join
from include.monitoring.traffic import Champion
from include.serving.prediction_log import LogTexts, Said, as_table, folder, new_id
from tests.unit.registry_services import deployment

pytest_plugins = ["tests.unit.registry_services"]
pytestmark = pytest.mark.usefixtures("bucket")

LABELS = ["card", "refund", "parcel"]
TODAY = date(2026, 3, 30)
NOW = datetime(2026, 3, 31, 0, 5, tzinfo=UTC)


def nobody(texts: list[str]) -> NDArray[np.float32]:
    raise AssertionError(f"{len(texts)} texts were scored again")


def as_refunds(texts: list[str]) -> NDArray[np.float32]:
    return np.tile(np.array([0.1, 0.7, 0.2], np.float32), (len(texts), 1))


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with deployment(monkeypatch, AWS_ENDPOINT_URL=s3_url, BERT_BUCKET="bert"):
        yield


class Log:
    """A model's prediction log that a test fills."""

    def __init__(self) -> None:
        self.model = f"m-{uuid4().hex[:8]}"
        self.champion = Champion(self.model, "2", "", tuple(LABELS), datetime(2026, 3, 1, 9, tzinfo=UTC))

    def write(
        self, day: date, texts: Sequence[str] = ("a text",) * 10, *, version: str = "2", kept: LogTexts = "full",
        sure: float = 0.8, label: int = 0, **more: Any,
    ) -> str:  # fmt: skip
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        shares = np.full((len(texts), len(LABELS)), (1 - sure) / (len(LABELS) - 1), np.float32)
        shares[:, label] = sure
        said = Said(
            self.model, version, at, [new_id(at) for _ in texts], list(texts), [False] * len(texts), LABELS, shares,
            5.0, [None] * len(texts), **more,
        )  # fmt: skip
        return self.put(day, as_table([said], kept))

    def put(self, day: date, table: pa.Table) -> str:
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        uri = f"{folder(self.model, day.isoformat())}{uuid4().hex}.parquet"
        return objects.write_bytes(uri, sink.getvalue().to_pybytes())

    def kept(self, day: date, version: str = "2") -> bool:
        return objects.exists(traffic.sums_uri(self.model, version, day))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def local(file_lake: str) -> Log:
    """One in a folder, for tests that write many files."""
    return Log()


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def test_a_days_answers_become_sums_that_are_kept_and_not_read_again(log: Log) -> None:
    log.write(TODAY, ["abc"] * 4, sure=0.8)
    log.write(TODAY, ["abcdefg"] * 2, sure=0.6, label=2)
    found = traffic.day_of(log.champion, TODAY, NOW, nobody)
    assert found is not None
    assert (found.texts, found.of, found.answered, found.scored_again) == (6, 6, 6, False)
    assert found.label_sums == pytest.approx([4 * 0.8 + 2 * 0.2, 6 * 0.1 + 2 * 0.1, 4 * 0.1 + 2 * 0.6], abs=1e-6)
    assert found.predicted == {"card": 4, "parcel": 2}
    assert found.measures["confidence"][0] == pytest.approx(4 * 0.8 + 2 * 0.6)
    assert found.measures["log_characters"][0] == pytest.approx(4 * np.log1p(3) + 2 * np.log1p(7))
    assert sum(found.confidence) == 6
    old = NOW + timedelta(days=30)
    for uri in objects.find(folder(log.model, TODAY.isoformat())):
        objects.delete(uri)
    assert traffic.day_of(log.champion, TODAY, old, nobody) == found, "the log may be gone by then"


def test_rows_that_come_late_are_counted_when_the_day_is_asked_for_again(log: Log) -> None:
    log.write(TODAY)
    first = traffic.day_of(log.champion, TODAY, NOW, nobody)
    log.write(TODAY)
    again = traffic.day_of(log.champion, TODAY, NOW, nobody)
    assert first is not None
    assert again is not None
    assert (first.texts, again.texts) == (10, 20)


def test_a_day_without_answers_is_a_day(log: Log) -> None:
    log.write(ago(2))
    found, why = traffic.days_until(log.champion, ago(5), TODAY, NOW, nobody)
    assert [(one.day, one.texts) for one in found] == [(ago(2), 10), (ago(1), 0), (TODAY, 0)]
    assert why == "the prediction log begins on 2026-03-28"
    assert log.kept(ago(1))
    assert join([one.days for one in found]).texts.tolist() == [10, 0, 0]


def test_shadows_batches_and_the_weekly_etl_are_no_traffic(log: Log) -> None:
    log.write(TODAY)
    log.write(TODAY, role="shadow")
    log.write(TODAY, source="batch")
    log.write(TODAY, source="weekly_etl")
    found = traffic.day_of(log.champion, TODAY, NOW, nobody)
    assert found is not None
    assert (found.texts, found.of) == (10, 10)


def test_days_of_an_earlier_champion_are_scored_again_once(log: Log) -> None:
    before = log.champion.since.date() - timedelta(days=1)
    log.write(before, [f"text {number}" for number in range(30)], version="1")
    found = traffic.day_of(log.champion, before, NOW, as_refunds)
    assert found is not None
    assert found.scored_again
    assert (found.texts, found.answered, found.of) == (30, 0, 30)
    assert found.predicted == {"refund": 30}
    assert traffic.day_of(log.champion, before, NOW, nobody) == found


def test_a_day_on_which_the_champion_answered_few_is_scored_again_and_one_on_which_it_answered_most_is_not(
    log: Log,
) -> None:
    log.write(TODAY, ["few"] * 10)
    log.write(TODAY, ["others"] * 30, version="1")
    log.write(ago(1), ["most"] * 30)
    log.write(ago(1), ["others"] * 10, version="1")
    few = traffic.day_of(log.champion, TODAY, NOW, as_refunds)
    most = traffic.day_of(log.champion, ago(1), NOW, nobody)
    assert few is not None
    assert most is not None
    assert (few.texts, few.scored_again) == (40, True)
    assert (most.texts, most.of, most.scored_again) == (30, 40, False)


def test_a_large_day_is_scored_again_by_a_part_of_it_that_is_always_the_same(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "MOST_RESCORED", 50)
    asked: list[list[str]] = []

    def score(texts: list[str]) -> NDArray[np.float32]:
        asked.append(texts)
        return as_refunds(texts)

    for part in range(6):
        log.write(TODAY, [f"{part} {number}" for number in range(30)], version="1")
    for _ in range(2):
        found = traffic.day_of(log.champion, TODAY, NOW, score)
        assert found is not None
        objects.delete(traffic.sums_uri(log.model, "2", TODAY))
    assert found.texts == 50
    assert asked[0] == asked[1]


@pytest.mark.parametrize("kept", ["hash", "off"])
def test_without_texts_days_of_other_versions_are_not_known_and_lengths_are_not_watched(
    log: Log, kept: LogTexts
) -> None:
    log.write(ago(3), kept=kept)
    log.write(ago(2), kept=kept, version="1")
    log.write(ago(1), kept=kept)
    log.write(TODAY, kept=kept)
    found, why = traffic.days_until(log.champion, ago(3), TODAY, NOW, nobody)
    assert [one.day for one in found] == [ago(1), TODAY]
    assert "2026-03-28 was answered by another version, and its texts are not in the log (BERT_LOG_TEXTS)" in why
    assert join([one.days for one in found]).measures == ("confidence",)


def test_lengths_are_watched_on_days_that_all_have_texts_only(log: Log) -> None:
    log.write(ago(1))
    log.write(TODAY, kept="hash")
    days = [traffic.day_of(log.champion, day, NOW, nobody) for day in (ago(1), TODAY)]
    both = join([one.days for one in days if one])
    assert both.measures == ("confidence",)
    assert both.measure_sums.shape == (2, 1)


def test_the_log_of_an_older_version_and_of_other_writers_is_read(log: Log) -> None:
    table = parquet.read_table(pa.BufferReader(objects.read_bytes(log.write(TODAY))))
    older = table.drop_columns(["source", "role", "cut"])
    log.put(TODAY, older.set_column(older.column_names.index("label"), "label", older["label"].cast(pa.large_string())))
    found = traffic.look(log.model, TODAY, log.champion)
    assert not found.faults
    assert found.sums.texts == 20


def test_files_that_are_not_as_they_should_be_are_told_and_columns_that_are_new_are_no_fault(log: Log) -> None:
    table = parquet.read_table(pa.BufferReader(objects.read_bytes(log.write(TODAY))))
    log.put(TODAY, table.append_column("country", pa.array(["de"] * 10)))
    log.put(TODAY, table.drop_columns(["label"]))
    log.put(TODAY, table.set_column(table.column_names.index("probability"), "probability", pa.array(["high"] * 10)))
    objects.write_bytes(f"{folder(log.model, TODAY.isoformat())}no.parquet", b"text,label\n")
    found = traffic.look(log.model, TODAY, log.champion)
    assert found.news == ("country",)
    assert found.sums.texts == 20
    told = sorted(fault.split(".parquet", 1)[1] for fault in found.faults)
    assert [one[:40] for one in told[1:]] == [": it has no column label", ": probability is string and not float"]
    assert told[0].startswith(" cannot be read: ")


def test_the_sample_of_a_large_day_is_any_rows(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MOST_SAMPLED", 40)
    for part in range(8):
        log.write(TODAY, [str(part)] * 50)
    found = traffic.look(log.model, TODAY, log.champion)
    assert (len(found.sample), found.sums.of) == (40, 400)
    assert len(set(found.sample["text"].to_pylist())) >= 6
    assert found.sample.equals(traffic.look(log.model, TODAY, log.champion).sample)


def test_reading_a_day_takes_no_more_memory_if_there_are_more_files(
    local: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [f"label {number}" for number in range(50)]
    champion = Champion(local.model, "2", "", tuple(labels), local.champion.since)
    at = datetime(2026, 3, 30, 12, tzinfo=UTC)
    ids, nobody_else, shares = [new_id(at) for _ in range(200)], [None] * 200, np.full((200, 50), 0.02, np.float32)
    said = Said(local.model, "2", at, ids, ["some text"] * 200, [False] * 200, labels, shares, 5.0, nobody_else)
    table = as_table([said], "full")
    monkeypatch.setattr(traffic, "MOST_SAMPLED", 100)
    peaks, usual = [], pa.default_memory_pool()
    for day, count in ((ago(1), 40), (TODAY, 200)):
        for _ in range(count):
            local.put(day, table)
        mine = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(mine)
        try:
            assert traffic.look(local.model, day, champion).sums.texts == 200 * count
        finally:
            pa.set_memory_pool(usual)
        peaks.append(mine.max_memory())
    assert peaks[1] < 1.5 * peaks[0]


def test_a_real_champion_scores_texts_again(log: Log, tiny_bert: Path) -> None:
    uri = objects.upload(tiny_bert, lake.model(log.model, "2"))
    champion = Champion(log.model, "2", uri, ("card", "refund"), datetime(2026, 3, 30, 9, tzinfo=UTC))
    log.write(ago(1), ["where is my card", "a refund"], version="1")
    with traffic.scorer(champion) as score:
        found = traffic.day_of(champion, ago(1), NOW, score)
    assert found is not None
    assert sum(found.label_sums) == pytest.approx(2)


def test_the_reference_reaches_back_four_weeks_but_not_before_a_drift_that_led_to_the_champion(
    log: Log,
) -> None:
    promoted = log.champion.since.date()
    assert begins(log.champion, []) == promoted - timedelta(days=28)
    seen = [Alarm(promoted - timedelta(days=days), promoted - timedelta(days=days + 2), "1") for days in (60, 5, 3)]
    assert begins(log.champion, seen) == promoted - timedelta(days=7)
    assert begins(log.champion, [Alarm(promoted + timedelta(days=3), promoted, "2")]) == promoted - timedelta(days=28)


def test_a_reference_takes_in_no_day_since_a_drift(local: Log) -> None:
    promoted = local.champion.since.date()
    seen = [Alarm(promoted + timedelta(days=days), promoted + timedelta(days=days - 2), "2") for days in (14, 13)]
    before = ends(local.champion, [*seen, Alarm(promoted, promoted - timedelta(days=3), "1")])
    assert before == promoted + timedelta(days=11)
    assert ends(local.champion, []) is None
    for number in range(30):
        local.write(promoted + timedelta(days=number), ["some text"] * 40)
    kept, _ = traffic.days_until(local.champion, promoted, promoted + timedelta(days=29), NOW, as_refunds)
    found = assess(kept, 1.0, until=before)
    assert found.reference == (promoted, promoted + timedelta(days=10))
    early = assess(kept, 1.0, until=promoted + timedelta(days=2))
    assert early.reference == (promoted, promoted + timedelta(days=6)), "fewer than seven days are none"


def test_the_first_days_are_the_reference_and_the_last_week_never_is(local: Log) -> None:
    for number in range(40):
        local.write(ago(number), ["some text"] * 40)
    kept, _ = traffic.days_until(local.champion, ago(39), TODAY, NOW, as_refunds)
    sizes = {}
    for count in (9, 10, 14, 20, 35, 40):
        found = assess(kept[:count], 1.0)
        sizes[count] = (found.reference[1] - found.reference[0]).days + 1 if found.reference else 0
    assert sizes == {9: 0, 10: 7, 14: 7, 20: 13, 35: 28, 40: 28}
    assert assess(kept[:9], 1.0, "the log begins then").told == (
        "nothing is tested yet: there are 9 days of the champion's traffic, and it takes 7 as reference and 3 after it "
        "(the log begins then)"
    )
    assert {one.window for one in assess(kept, 1.0).comparisons} == {3, 7}


def test_a_reference_that_grows_gives_no_more_false_alarms() -> None:
    from tests.unit.test_monitoring_drift import Traffic

    alarmed = days = 0
    for seed in range(12):
        seen = Traffic(seed, texts=(100, 500, 3_000)[seed % 3], ups_and_downs=(0.05, 0.2)[seed % 2]).days(36)
        for number in range(10, 36):
            size = reference_size(number)
            alarmed += any(one.alarms for one in drift.assess(drift.Reference(seen[:size]), seen[size:number]))
            days += 1
    assert days == 312
    assert alarmed <= 1
