"""Claims against a real S3 server over HTTP: crashes, races and odd names."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from include import lake, objects
from include.settings import settings
from include.uploads import claims, open_batches
from include.uploads.rounds import Pipeline
from tests.scenarios.conftest import Bucket, claimed

ODD_NAMES = ["plain.csv", "sub/folder/a b.csv", "ü+%25 & ?#.csv", "日本/ñ.csv", "a'\"(1)[x].csv", "100%.csv"]


def test_odd_names_and_sub_folders_are_claimed_byte_for_byte(s3: Bucket) -> None:
    for at, name in enumerate(ODD_NAMES):
        s3.put(name, f"content {at}".encode())
    (batch,) = claims.claim_uploads("b1")
    assert len(batch.files) == len(ODD_NAMES)
    assert claimed() == {name: f"content {at}".encode() for at, name in enumerate(ODD_NAMES)}
    assert s3.incoming() == []


def test_nothing_to_claim_gives_no_batch(s3: Bucket) -> None:
    s3.client.put_object(Bucket=s3.name, Key="incoming/folder marker/", Body=b"")
    assert claims.claim_uploads("b1") == []
    assert claims.waiting_batches() == []


def test_an_upload_that_may_still_be_written_is_waited_for_and_then_claimed(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_UPLOAD_SETTLE_SECONDS", "2")
    settings.cache_clear()
    s3.put("a.csv")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(seconds)

    (batch,) = claims.claim_uploads("b1", sleep)
    assert [file.key for file in batch.files] == ["incoming/a.csv"]
    assert len(slept) == 1


def test_an_unfinished_name_is_left_until_it_is_renamed(s3: Bucket) -> None:
    s3.put("a.csv.part")
    s3.put("b.csv")
    claims.claim_uploads("b1", sleep=lambda seconds: None)
    assert s3.incoming() == ["a.csv.part"]


def test_a_batch_whose_manifest_was_damaged_keeps_no_other_from_being_used(s3: Bucket) -> None:
    from include.orchestration import listening

    s3.put("a.csv")
    claims.claim_uploads("b1")
    objects.write_bytes(lake.claims("b1", "manifest.json"), b'{"batch_id": "b1", "files": [')
    s3.put("b.csv")
    claims.claim_uploads("b2")
    assert claimed().keys() == {"b.csv"}
    state = Pipeline(hears=True, will_come=False, busy=False, is_over=lambda run_id: False)
    said = listening._note(open_batches.lives(), [], state, open_batches.damaged())
    assert said.startswith(f"**s3://{s3.name}/claims/b1/manifest.json is damaged**: no run uses this batch's files")
    assert "b2" not in said
    assert [entry.batch_id for entry in open_batches.lives()] == ["b2"], "and nobody is told of it again and again"


def test_a_file_that_cannot_be_copied_keeps_no_other_from_being_claimed(s3: Bucket) -> None:
    s3.client.put_object(Bucket=s3.name, Key="incoming/archived.csv", Body=b"a", StorageClass="GLACIER")
    s3.put("good.csv", b"b")
    claims.claim_uploads("b1")
    assert claimed() == {"good.csv": b"b"}
    with pytest.raises(claims.ClaimError, match=r"incoming/archived\.csv.*archive"):
        claims.claim_uploads("b2")
    s3.put("good.csv", b"c")
    (batch,) = claims.claim_uploads("b3")
    assert [file.key for file in batch.files] == ["incoming/good.csv"]
    assert s3.incoming() == ["archived.csv"]
    s3.put("archived.csv", b"a")  # back from the archive: the listener that failed tries again
    claims.claim_uploads("b2")
    assert claimed()["archived.csv"] == b"a"


def test_the_tags_of_an_upload_need_no_permission(s3: Bucket) -> None:
    s3.client.put_object(Bucket=s3.name, Key="incoming/tagged.csv", Body=b"a", Tagging="team=a")
    (batch,) = claims.claim_uploads("b1")
    key = batch.files[0].uri.removeprefix(f"s3://{s3.name}/")
    assert s3.client.get_object_tagging(Bucket=s3.name, Key=key)["TagSet"] == []


def test_an_overwritten_upload_is_two_uploads(s3: Bucket) -> None:
    s3.put("a.csv", b"first")
    claims.claim_uploads("b1")
    s3.put("a.csv", b"second")
    claims.claim_uploads("b2")
    contents = [objects.read_bytes(file.uri) for batch in claims.waiting_batches() for file in batch.files]
    assert contents == [b"first", b"second"]


def test_an_upload_overwritten_between_listing_and_copy_is_left_for_the_next_claim(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("a.csv", b"first")
    copy = claims._copy

    def overwrite_then_copy(client: Any, batch_id: str, upload: claims.Upload) -> Any:
        s3.put("a.csv", b"second")
        return copy(client, batch_id, upload)

    monkeypatch.setattr(claims, "_copy", overwrite_then_copy)
    assert claims.claim_uploads("b1") == []
    monkeypatch.setattr(claims, "_copy", copy)
    claims.claim_uploads("b2")
    assert claimed() == {"a.csv": b"second"}


def test_an_upload_overwritten_between_copy_and_delete_stays(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("a.csv", b"first")
    delete = s3.client.meta.service_model.operation_model("DeleteObject")
    assert "IfMatch" in delete.input_shape.members
    real = claims._delete

    def overwrite_then_delete(client: Any, upload: claims.Upload) -> None:
        s3.put("a.csv", b"second")
        real(client, upload)

    monkeypatch.setattr(claims, "_delete", overwrite_then_delete)
    claims.claim_uploads("b1")
    assert s3.incoming() == ["a.csv"]
    monkeypatch.setattr(claims, "_delete", real)
    claims.claim_uploads("b2")
    contents = [objects.read_bytes(file.uri) for batch in claims.waiting_batches() for file in batch.files]
    assert contents == [b"first", b"second"]
    assert s3.incoming() == []


def test_old_content_that_comes_back_after_losing_its_claim_is_claimed_anew(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("a.csv", b"old")
    s3.put("b.csv", b"other")
    copy = claims._copy

    def overwrite_then_copy(client: Any, batch_id: str, upload: claims.Upload) -> Any:
        if upload.key.endswith("a.csv"):
            s3.put("a.csv", b"new")
        return copy(client, batch_id, upload)

    monkeypatch.setattr(claims, "_copy", overwrite_then_copy)
    claims.claim_uploads("b1")
    monkeypatch.setattr(claims, "_copy", copy)
    s3.put("a.csv", b"old")
    claims.claim_uploads("b2")
    assert claimed() == {"a.csv": b"old", "b.csv": b"other"}
    assert s3.incoming() == []


def test_the_same_upload_again_is_not_used_twice(s3: Bucket) -> None:
    s3.put("a.csv", b"same")
    claims.claim_uploads("b1")
    claims.take("b1", "run 1")
    s3.put("a.csv", b"same")
    assert claims.claim_uploads("b2") == []
    assert s3.incoming() == []
    assert claims.waiting_batches() == []


def test_a_batch_that_nobody_was_told_about_is_told_after_its_lease(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("a.csv", b"a")
    process = multiprocessing.get_context("fork").Process(target=_claim_and_die, args=("_clear_sealed", "b1"))
    process.start()
    process.join()
    assert claims.claim_uploads("b2", sleep=lambda seconds: None) == [], "its listener may be about to tell"
    monkeypatch.setenv("BERT_CLAIM_LEASE_SECONDS", "0.001")
    settings.cache_clear()
    assert [batch.batch_id for batch in claims.claim_uploads("b3")] == ["b1"]
    assert s3.incoming() == []


def test_a_users_manifest_and_run_files_are_files_like_any_other(s3: Bucket) -> None:
    s3.put("export/manifest.json", b'{"files": 3}')
    s3.put("export/run.json", b"[1]")
    (batch,) = claims.claim_uploads("b1")
    assert [one.batch_id for one in claims.waiting_batches()] == [batch.batch_id]
    assert claims.batches_of("run 1") == []


def test_a_name_with_a_version_in_it_is_read_back(s3: Bucket) -> None:
    s3.put("a?versionId=abc.csv", b"content")
    (batch,) = claims.claim_uploads("b1")
    assert objects.read_bytes(batch.files[0].uri) == b"content"


def _claim_and_die(step: str, batch_id: str) -> None:
    """Claims in a process of its own that is gone, as after kill -9, just before the step."""
    setattr(claims, step, lambda *arguments: os._exit(9))
    claims.claim_uploads(batch_id)


@pytest.mark.parametrize("step", ["_copy", "_delete", "_clear_sealed", "_seal"])
def test_a_listener_killed_at_any_step_and_repeated_loses_nothing(s3: Bucket, step: str) -> None:
    for name in ("a.csv", "b.csv"):
        s3.put(name, name.encode())
    process = multiprocessing.get_context("fork").Process(target=_claim_and_die, args=(step, "b1"))
    process.start()
    process.join()
    assert process.exitcode == 9
    (batch,) = claims.claim_uploads("b1")
    assert batch.batch_id == "b1"
    assert claimed() == {"a.csv": b"a.csv", "b.csv": b"b.csv"}
    assert s3.incoming() == []


def test_the_claim_of_a_dead_listener_is_taken_over_after_its_lease(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("a.csv", b"a")
    process = multiprocessing.get_context("fork").Process(target=_claim_and_die, args=("_copy", "b1"))
    process.start()
    process.join()
    slept: list[float] = []
    assert claims.claim_uploads("b2", slept.append) == [], "within its lease it may be alive"
    assert slept == [claims.OTHERS_WAIT_SECONDS], "a listener does not spin meanwhile"
    assert s3.incoming() == ["a.csv"]
    monkeypatch.setenv("BERT_CLAIM_LEASE_SECONDS", "0.001")
    settings.cache_clear()
    (batch,) = claims.claim_uploads("b3")
    assert batch.batch_id == "b1"
    assert claimed() == {"a.csv": b"a"}
    assert s3.incoming() == []


def test_listeners_at_once_never_both_win(s3: Bucket) -> None:
    for at in range(20):
        s3.put(f"{at}.csv", str(at).encode())
    with ThreadPoolExecutor(6) as pool:
        batches = [batch for found in pool.map(claims.claim_uploads, [f"b{at}" for at in range(6)]) for batch in found]
    claims.claim_uploads("last")
    keys = [file.key for batch in batches for file in batch.files]
    assert len(keys) == len(set(keys))
    assert claimed() == {f"{at}.csv": str(at).encode() for at in range(20)}
    assert s3.incoming() == []


def test_uploads_arriving_during_claims_are_all_claimed_once(s3: Bucket) -> None:
    def upload() -> None:
        for at in range(40):
            s3.put(f"{at}.csv", str(at).encode())

    with ThreadPoolExecutor(3) as pool:
        writer = pool.submit(upload)
        rounds = 0
        while not writer.done():
            list(pool.map(claims.claim_uploads, [f"b{rounds}-{at}" for at in range(2)]))
            rounds += 1
    claims.claim_uploads("last")
    assert claimed() == {f"{at}.csv": str(at).encode() for at in range(40)}
    assert s3.incoming() == []


def test_a_batch_is_taken_by_one_run(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    assert claims.take("b1", "run 1")
    assert claims.take("b1", "run 1"), "the same run again"
    assert not claims.take("b1", "run 2")
    assert claims.waiting_batches() == []
    assert [batch.batch_id for batch in claims.batches_of("run 1")] == ["b1"]
