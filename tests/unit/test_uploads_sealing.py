"""Batches that nobody uploaded."""

from include import lake, objects
from include.uploads import claims, lifecycle, open_batches
from include.uploads.records import Batch
from include.uploads.sealing import seal


def test_a_batch_that_a_run_seals_for_itself_is_its_own_from_the_first_moment(file_lake: str) -> None:
    uri = objects.write_bytes(lake.staging("r", "export.parquet"), b"rows")
    for _ in range(2):  # repeated, it is the same
        batch = seal("20260104T000000-1", "weekly_etl/2026-W01.parquet", uri, origin="weekly_etl", run_id="r")
        assert (batch.origin, objects.read_bytes(batch.files[0].uri)) == ("weekly_etl", b"rows")
    life = lifecycle.read(batch.batch_id)
    assert (life.state, life.run_id, life.number) == ("taken", "r", 1)
    assert claims.waiting_batches() == []
    assert [one.batch_id for one in claims.batches_of("r")] == [batch.batch_id]


def test_one_without_a_run_waits_for_the_listener(file_lake: str) -> None:
    uri = objects.write_bytes(lake.staging("r", "export.parquet"), b"rows")
    batch = seal("20260104T000000-1", "weekly_etl_nightly/2026-W01.parquet", uri, origin="weekly_etl_nightly")
    assert [one.batch_id for one in claims.waiting_batches()] == [batch.batch_id]
    assert open_batches.ids() == [batch.batch_id]


def test_a_manifest_of_an_older_version_is_one_of_an_upload() -> None:
    assert Batch.model_validate_json('{"batch_id": "b", "files": []}').origin == "upload"
