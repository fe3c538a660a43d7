"""What becomes of batches, against a real S3 server over HTTP: releases, repetitions, cost, expiry, an unfit store."""

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import aiobotocore.client
import botocore.client
import botocore.exceptions
import pytest
import s3fs

from include import lake, objects
from include.datasets.intake import Intake, Plan, Source
from include.settings import settings
from include.uploads import claims, lifecycle, open_batches, probe, refusals, rounds
from include.uploads.expiry import expire_claims
from include.uploads.lifecycle import State, Who
from include.uploads.rounds import Pipeline, Step
from tests.scenarios.conftest import Bucket, claimed
from tests.scenarios.proxy import Proxy, proxied

IDLE = Pipeline(hears=True, will_come=False, busy=False, is_over=lambda run_id: True)


def end(batch_id: str, run_id: str, state: State, again: list[str] | None = None) -> None:
    """A run takes a batch and brings it to an end."""
    assert claims.take(batch_id, run_id)
    assert lifecycle.move(batch_id, state, Who.RUN, again=again or [])
    open_batches.close(batch_id)


def step(batch_id: str, minutes: float = 0) -> Step | None:
    """What a listener would do about a batch some minutes from now."""
    entry = lifecycle.read(batch_id)
    since = entry.at if entry.number else datetime.now(UTC)
    return rounds.next_step(entry, IDLE, since + timedelta(minutes=minutes))


def test_the_batches_of_dead_runs_are_told_of_three_times_more_with_back_off_and_then_given_up(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    for failure, pause in enumerate([0, 5, 10, 20]):
        assert step("b1", pause - 1) is (None if failure else Step.TELL)
        assert step("b1", pause) is Step.TELL
        assert rounds.tell("b1", f"listener {failure}")
        assert claims.take("b1", f"run {failure}")
        assert claims.waiting_batches() == []
        (released,) = rounds.release_abandoned(IDLE)
        assert (released.state, released.failures) == (State.RELEASED, failure + 1)
        assert [batch.batch_id for batch in claims.waiting_batches()] == ["b1"], "any other run takes it meanwhile"
    assert step("b1", 9999) is Step.GIVE_UP
    assert rounds.give_up(lifecycle.read("b1"))
    assert step("b1", 9999) is None, "it is given up, and alerted of, once"
    assert "4 runs failed" in lifecycle.read("b1").reason
    assert claims.take("b1", "run 9")


def test_a_batch_that_was_given_up_makes_no_later_upload_fail_more_than_once(s3: Bucket) -> None:
    def fail(run_id: str) -> list[str]:
        taken = [batch.batch_id for batch in claims.waiting_batches()]
        assert all(claims.take(batch_id, run_id) for batch_id in taken)
        rounds.release_abandoned(IDLE)
        return taken

    s3.put("a.csv", b"makes every run fail")
    claims.claim_uploads("b1")
    assert [fail(f"run {failure}") for failure in range(4)] == [["b1"]] * 4
    assert rounds.give_up(lifecycle.read("b1"))
    s3.put("b.csv", b"good")
    claims.claim_uploads("b2")
    assert fail("run 5") == ["b1", "b2"], "what made runs fail may be over, as when MLflow was gone"
    assert rounds.give_up(lifecycle.read("b1"))
    for told in (False, True):
        assert not told or rounds.tell("b2", "listener")
        assert [batch.batch_id for batch in claims.waiting_batches()] == ["b2"]
    end("b2", "run 6", State.USED)
    assert [batch.batch_id for batch in claims.waiting_batches()] == ["b1"]


def test_of_two_batches_whose_runs_failed_together_only_the_one_is_given_up_that_makes_runs_fail(s3: Bucket) -> None:
    def run(run_id: str) -> list[str]:
        taken = [batch.batch_id for batch in claims.waiting_batches()]
        assert all(claims.take(batch_id, run_id) for batch_id in taken)
        if "b1" in taken:
            rounds.release_abandoned(IDLE)
        else:
            assert all(lifecycle.move(batch_id, State.USED, Who.RUN) for batch_id in taken)
        return taken

    for batch_id in ("b1", "b2"):
        s3.put(f"{batch_id}.csv", batch_id.encode())
        claims.claim_uploads(batch_id)
    assert [run(f"run {failure}") for failure in range(3)] == [["b1", "b2"]] * 3
    s3.put("b3.csv")
    claims.claim_uploads("b3")
    assert [run("run 3"), run("run 4")] == [["b3"], ["b1"]], "what is on its last try holds nothing up"
    assert (step("b1"), step("b2", 20)) == (Step.GIVE_UP, Step.TELL)
    assert rounds.give_up(lifecycle.read("b1"))
    assert run("run 5") == ["b2"]


def test_the_same_file_again_wakes_a_batch_that_was_given_up(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    for failure in range(4):
        claims.take("b1", f"run {failure}")
        rounds.release_abandoned(IDLE)
    rounds.give_up(lifecycle.read("b1"))
    s3.put("a.csv")
    assert [batch.batch_id for batch in claims.claim_uploads("b2")] == ["b1"]
    assert s3.incoming() == []
    assert rounds.tell("b1", "listener", anew=True)
    assert (lifecycle.read("b1").tells, lifecycle.read("b1").failures) == (1, 0)


def test_a_listener_that_repeats_itself_tells_again_and_another_does_not(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    assert rounds.tell("b1", "listener 1")
    assert rounds.tell("b1", "listener 1"), "it was killed before its event"
    assert lifecycle.read("b1").tells == 1
    claims.take("b1", "run 1")
    assert not rounds.tell("b1", "listener 1")


def test_of_many_runs_at_once_one_takes_a_batch(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(lambda at: claims.take("b1", f"run {at}"), range(8)))
    assert sum(took) == 1
    assert lifecycle.read("b1").run_id == f"run {took.index(True)}"
    assert lifecycle.read("b1").number == 1


def test_a_file_of_which_no_row_was_used_is_new_when_it_comes_again_and_another_is_not(s3: Bucket) -> None:
    s3.put("odd.csv", b"odd")
    s3.put("good.csv", b"good")
    (batch,) = claims.claim_uploads("b1")
    odd = next(file for file in batch.files if file.key.endswith("odd.csv"))
    end("b1", "run 1", State.USED, again=[odd.mark])
    s3.put("odd.csv", b"odd")
    s3.put("good.csv", b"good")
    (batch,) = claims.claim_uploads("b2")
    assert [file.key for file in batch.files] == ["incoming/odd.csv"]
    assert s3.incoming() == []
    s3.put("odd.csv", b"odd")
    claims.claim_uploads("b3")
    assert claimed() == {"odd.csv": b"odd"}, "and then it is the same upload again"


def test_a_file_that_cannot_be_copied_stops_nobody_after_its_lease_and_is_shown(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_CLAIM_LEASE_SECONDS", "0.001")
    settings.cache_clear()
    s3.client.put_object(Bucket=s3.name, Key="incoming/a archived.csv", Body=b"a", StorageClass="GLACIER")
    with pytest.raises(claims.ClaimError, match="archived"):
        claims.claim_uploads("b1")
    for at in range(3):
        s3.put("good.csv", b"%d" % at)
        (batch,) = claims.claim_uploads(f"good-{at}", sleep=lambda seconds: None)
        assert [file.key for file in batch.files] == ["incoming/good.csv"]
    (refusal,) = refusals.known()
    assert refusal.key == "incoming/a archived.csv"
    assert "archive tier" in refusal.reason
    s3.client.delete_object(Bucket=s3.name, Key="incoming/a archived.csv")
    claims.claim_uploads("b5", sleep=lambda seconds: None)
    assert refusals.known() == []


def test_an_ended_batch_whose_mark_was_left_is_passed_over_and_the_mark_taken_away(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    claims.take("b1", "run 1")
    lifecycle.move("b1", State.USED, Who.RUN)
    assert open_batches.ids() == ["b1"]
    assert open_batches.lives() == []
    assert open_batches.ids() == []


def test_a_batch_that_is_opened_again_keeps_its_mark_from_who_saw_its_end(s3: Bucket) -> None:
    s3.put("a.csv")
    claims.claim_uploads("b1")
    seen = objects.etag(lake.open_batch("b1"))
    assert seen
    open_batches.mark("b1")
    assert not objects.delete(lake.open_batch("b1"), seen)
    assert open_batches.ids() == ["b1"]


def test_what_an_older_version_left_goes_on(s3: Bucket) -> None:
    """It had no marks and no lives: a manifest, and beside it run.json as soon as a run had it."""
    from include.orchestration import batches

    for batch_id in ("waiting", "running", "used"):
        s3.put(f"{batch_id}.csv", batch_id.encode())
        claims.claim_uploads(batch_id)
        objects.delete(lake.open_batch(batch_id))
    for batch_id in ("running", "used"):
        objects.write_json(lake.claims(batch_id, "run.json"), {"run_id": f"run {batch_id}"})
    objects.write_json(lake.report(batches.PIPELINE, "run used", "run.json"), {"outcome": "promoted"})
    batches.reopen_old()
    assert open_batches.ids() == ["running", "waiting"]
    assert claimed() == {"waiting.csv": b"waiting"}
    assert claims.take("running", "run running"), "it goes on with it"
    assert not claims.take("running", "run 2")
    assert [entry.batch_id for entry in rounds.release_abandoned(IDLE)] == ["running"]
    objects.delete(lake.open_batch("waiting"))
    batches.reopen_old()
    assert open_batches.ids() == ["running"], "all claims are listed once"


Call = tuple[str, str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What S3 is asked: the operation, ``none`` before it where nothing was there to be read, and the key or prefix."""
    asked: list[Call] = []
    real, real_async = botocore.client.BaseClient._make_api_call, aiobotocore.client.AioBaseClient._make_api_call

    def call(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        asked.append((operation, arguments.get("Prefix", arguments.get("Key", ""))))
        return real(self, operation, arguments)

    async def call_async(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "GetObject":
            try:
                found = await real_async(self, operation, arguments)
            except botocore.exceptions.ClientError:
                operation = "none GetObject"
                raise
            finally:
                asked.append((operation, arguments["Key"]))
            return found
        asked.append((operation, arguments.get("Prefix", arguments.get("Key", ""))))
        return await real_async(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", call_async)
    return asked


def claim_and_plan(s3: Bucket, batch_id: str, calls: list[Call]) -> Counter[str]:
    """Claims one upload and looks at what waits; the requests by operation."""
    s3.put(f"{batch_id}.csv", batch_id.encode())
    calls.clear()
    claims.claim_uploads(batch_id)
    rounds.release_abandoned(IDLE)
    assert [batch.batch_id for batch in claims.batches_of("run") + claims.waiting_batches()] == [batch_id]
    return Counter(operation for operation, _ in calls)


def test_a_claim_and_a_plan_cost_no_more_with_history(s3: Bucket, calls: list[Call]) -> None:
    before = claim_and_plan(s3, "b0", calls)
    end("b0", "run 0", State.USED)
    for at in range(1, 20):
        s3.put(f"{at}.csv", b"%d" % at)
        claims.claim_uploads(f"c{at:02}")
        end(f"c{at:02}", f"run {at}", State.USED)
    assert claim_and_plan(s3, "d0", calls) == before
    listed = {prefix for operation, prefix in calls if operation == "ListObjectsV2"}
    grows_not = {"incoming/", "claims/open/", "claims/refused/"}
    assert {prefix for prefix in listed if not prefix.startswith("claims/d0/")} <= grows_not


def test_a_claim_costs_three_requests_per_upload_and_reads_each_manifest_once(s3: Bucket, calls: list[Call]) -> None:
    for at in range(40):
        s3.put(f"{at}.csv", b"%d" % at)
    claims.claim_uploads("b1")
    claims.take("b1", "run 1")
    for at in range(40):
        s3.put(f"{at}.csv", b"%d" % at)
        s3.put(f"new {at}.csv", b"%d" % at)
    calls.clear()
    claims.claim_uploads("b2")
    assert s3.incoming() == []
    new = [key for _, key in calls if "new" in key]
    assert len(new) == 2 * 40, "its copy and its deletion"
    assert len([key for operation, key in calls if operation == "PutObject" and "/index/" in key]) == 80
    manifests = [key for operation, key in calls if operation == "GetObject" and key.endswith("/manifest.json")]
    assert sorted(manifests) == sorted(set(manifests)), manifests


def test_a_sweep_that_races_writers_loses_nothing(s3: Bucket) -> None:
    used: list[bytes] = []
    done = threading.Event()

    def write(writer: int) -> None:
        s3.put(f"{writer}.csv", b"%d" % writer)
        for batch in claims.claim_uploads(f"b{writer:02}", sleep=lambda seconds: None):
            if writer % 2 and claims.take(batch.batch_id, f"run {writer}"):
                used.extend(objects.read_bytes(file.uri) for file in batch.files)
                lifecycle.move(batch.batch_id, State.USED, Who.RUN)
                open_batches.close(batch.batch_id)

    def sweep() -> int:
        deleted = 0
        while not done.wait(0.2):
            deleted += sum(expire_claims(timedelta(0)).values())
        return deleted

    with ThreadPoolExecutor(17) as pool:
        sweeper = pool.submit(sweep)
        list(pool.map(write, range(16)))
        done.set()
        sweeper.result()
    claims.claim_uploads("last", sleep=lambda seconds: None)
    everything = sorted(used) + sorted(claimed().values())
    assert sorted(everything) == sorted(b"%d" % writer for writer in range(16))


def test_what_has_not_ended_never_expires_and_what_has_is_new_when_it_comes_again(s3: Bucket) -> None:
    for name in ("open", "used"):
        s3.put(f"{name}.csv", name.encode())
        claims.claim_uploads(name)
    end("used", "run 1", State.USED)
    time.sleep(1)
    assert expire_claims(timedelta(days=1)) == {"index": 0, "files": 0, "marks": 0}
    assert expire_claims(timedelta(0)) == {"index": 1, "files": 1, "marks": 0}
    assert claimed() == {"open.csv": b"open"}
    s3.put("open.csv", b"open")
    s3.put("used.csv", b"used")
    claims.claim_uploads("again")
    assert claimed() == {"open.csv": b"open", "used.csv": b"used"}


@pytest.fixture
def proxy(s3: Bucket, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("fault", ["conflict", "lost answer"])
def test_an_object_is_created_whatever_becomes_of_the_answer(proxy: Proxy, fault: str) -> None:
    uri = lake.claims("b1", "life/000001.json")
    proxy.faults = [fault]
    assert objects.create_bytes(uri, b"mine")
    assert not objects.create_bytes(uri, b"another's")
    proxy.faults = [fault]
    assert not objects.create_bytes(uri, b"another's")
    assert objects.read_bytes(uri) == b"mine"


@pytest.mark.parametrize(("header", "condition"), [("if-none-match", "If-None-Match"), ("if-match", "If-Match")])
def test_a_store_that_ignores_a_condition_is_refused_by_its_address(proxy: Proxy, header: str, condition: str) -> None:
    proxy.drops_headers = (header,)
    with pytest.raises(probe.UnfitStoreError, match=f"{proxy.address} ignores {condition}.*AWS_ENDPOINT_URL"):
        probe.require_fit_store()
    proxy.drops_headers = ()
    probe.require_fit_store()
    proxy.drops_headers = (header,)
    probe.require_fit_store()  # asked once


def _read_and_be_killed(plan: Plan) -> None:
    from include.orchestration import intake_steps

    intake_steps.validate_files = lambda plan, **_: os._exit(9)
    intake_steps._validate_files(plan)


def test_after_two_tries_that_were_killed_while_reading_each_file_is_read_by_itself(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import intake_steps

    source = Source(batch_id="b1", key="incoming/a.csv", uri=lake.claims("b1", "files/a.csv"))
    plan = Plan(run_id="run 1", model_name="m", sources=[source], parent_dataset_id=None)
    seen: list[bool] = []

    def validate_files(plan: Plan, *, isolated: bool = False) -> Intake:
        seen.append(isolated)
        if len(seen) == 1:
            raise OSError("S3 is away")
        return Intake(files=[], accepted_uri="", accepted_rows=0)

    monkeypatch.setattr(intake_steps, "validate_files", validate_files)
    with pytest.raises(OSError, match="away"):
        intake_steps._validate_files(plan)
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=_read_and_be_killed, args=(plan,))
        process.start()
        process.join()
        assert process.exitcode == 9
    intake_steps._validate_files(plan)
    intake_steps._validate_files(plan)
    assert seen == [False, True, False], "an error is no kill, and a try that survived forgets them"
