import gzip
import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include import lake, objects
from include.datasets import golden, newcomers, snapshots, spool
from include.datasets.building import build_dataset
from include.datasets.checks import rows_hash, text_keys
from include.datasets.intake import Plan, Source, copy_to_staging, sources_at, validate_files
from include.datasets.rejected import rejected_rows


def csv(texts: list[str], labels: list[str]) -> bytes:
    return pd.DataFrame({"text": texts, "label": labels}).to_csv(index=False).encode()


def good(n: int, start: int = 0) -> bytes:
    return csv([f"text {i}" for i in range(start, start + n)], ["x" if i % 2 else "y" for i in range(n)])


def plan(files: dict[str, bytes], run_id: str = "run:1", **options: object) -> Plan:
    sources = []
    for name, content in files.items():
        uri = objects.write_bytes(lake.claims("b1", f"files/{name}"), content)
        sources.append(Source(batch_id="b1", key=f"incoming/{name}", uri=uri))
    defaults = {"model_name": "m", "sources": sources, "parent_dataset_id": None}
    return Plan(run_id=run_id, **(defaults | options))  # type: ignore[arg-type]


def frozen_once(model_name: str, rows: pd.DataFrame) -> None:
    """A golden set as it was written before there were states."""
    content = rows[["text", "label"]].to_parquet(index=False)
    sha256 = hashlib.sha256(content).hexdigest()
    uri = objects.write_bytes(lake.golden(model_name, f"{sha256[:16]}.parquet"), content)
    objects.write_json(lake.golden(model_name, "golden.json"), {"uri": uri, "sha256": sha256, "rows": len(rows)})


def accepted(uri: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(objects.read_bytes(uri)))


def test_every_row_of_every_file_is_accounted_for(file_lake: str) -> None:
    bad = csv(["", "new", "text 1"], ["x", "", "y"])
    intake = validate_files(plan({"a b/ü+.csv": good(300), "bad.csv": bad, "n.csv": b"%PDF"}))
    assert intake.rows == {"in": 304, "used": 299, "rejected": 5, "waiting": 0}
    by_file = {file.key: file.by_rule for file in intake.files}
    assert by_file["incoming/a b/ü+.csv"] == {"contradictory_label": 1}
    assert by_file["incoming/bad.csv"] == {"contradictory_label": 1, "label_missing": 1, "text_empty": 1}
    assert by_file["incoming/n.csv"] == {"unreadable_file": 1}


def test_rejected_rows_lie_in_quarantine_with_rule_and_reason(file_lake: str) -> None:
    intake = validate_files(plan({"a.csv": good(300) + "über,x\n".encode() + b"caf\xe9,x\n,y\n"}))
    assert intake.files[0].quarantine == lake.quarantine("b1", "rejected.parquet")
    rejected = accepted(intake.files[0].quarantine)
    assert list(rejected["rule"]) == ["wrong_encoding", "text_empty"]
    assert list(rejected["row"]) == [302, 303]
    assert rejected["text"][0] == "caf\\udce9"


def test_an_unreadable_file_is_kept_whole_with_its_reason(file_lake: str) -> None:
    intake = validate_files(plan({"x/no table.csv": b"%PDF-1.4"}))
    assert intake.accepted_rows == 0
    uri = lake.quarantine("b1", "files/x/no table.csv")
    assert objects.read_bytes(uri) == b"%PDF-1.4"
    assert "a PDF" in objects.read_json(f"{uri}.reason.json")["reason"]


def test_a_file_that_somebody_deleted_stops_no_other(file_lake: str) -> None:
    wanted = plan({"gone.csv": good(3), "there.csv": good(300, start=100)})
    objects.delete(wanted.sources[0].uri)
    gone, there = validate_files(wanted).files
    assert (gone.used, gone.by_rule, gone.quarantine) == (0, {"unreadable_file": 1}, None)
    assert "no longer at" in gone.reason
    assert there.used == 300


def test_too_few_rows_for_a_first_model_wait(file_lake: str) -> None:
    intake = validate_files(plan({"a.csv": good(50)}))
    assert "first model needs 200" in intake.missing
    assert intake.rows == {"in": 50, "used": 0, "rejected": 0, "waiting": 50}


def test_the_first_dataset_brings_golden_rows_and_keeps_them_out(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    manifest = build_dataset(first, accepted(validate_files(first).accepted_uri))
    golden_set = golden.read("m")
    assert golden_set is not None
    assert golden_set.established.empty, "no upload brings its own judge"
    assert len(golden_set.judging(manifest["golden_origin"])) == len(golden_set.rows)
    assert len(golden_set.rows) + sum(manifest["rows"].values()) == 300
    assert not set(snapshots.read(manifest["dataset_id"])["text"]) & set(golden_set.rows["text"])


def test_the_second_dataset_adds_to_the_champions(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(validate_files(first).accepted_uri))
    golden_set = golden.follow("m", [parent["dataset_id"]], "promoted")
    leaking = csv(list(golden_set.rows["text"][:3]), list(golden_set.rows["label"][:3]))
    second = plan(
        {"b.csv": good(100, start=1000), "c.csv": leaking},
        "run:2", parent_dataset_id=parent["dataset_id"],
    )  # fmt: skip
    intake = validate_files(second)
    assert intake.files[1].by_rule == {"in_golden_set": 3}
    manifest = build_dataset(second, accepted(intake.accepted_uri))
    grown = golden.read("m")
    assert grown is not None
    assert len(grown.rows) > len(golden_set.rows)
    assert sum(manifest["rows"].values()) + len(grown.rows) == 400


def test_a_run_that_is_repeated_gives_the_same_dataset(file_lake: str) -> None:
    first = plan({"a.csv": good(300)}).pin()
    once = build_dataset(first, accepted(validate_files(first).accepted_uri))
    again = plan({"b.csv": good(10)}).pin()
    assert again == first, "the pinned plan counts, not what is there by now"
    assert build_dataset(again, accepted(validate_files(again).accepted_uri)) == once


def relabelled(frame: pd.DataFrame) -> bytes:
    return csv(list(frame["text"]), ["x" if label == "y" else "y" for label in frame["label"]])


def begun() -> tuple[dict[str, object], golden.GoldenSet]:
    """A champion of 300 rows: what a plan after it names, and its golden set."""
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(validate_files(first).accepted_uri))
    golden_set = golden.follow("m", [parent["dataset_id"]], "promoted")
    return {"parent_dataset_id": parent["dataset_id"], "golden_number": golden_set.number}, golden_set


def test_a_few_golden_labels_are_corrected_at_once(file_lake: str) -> None:
    options, golden_set = begun()
    wrong = golden_set.rows.head(5)
    second = plan({"b.csv": good(50, start=1000), "c.csv": relabelled(wrong)}, "run:2", **options)
    intake = validate_files(second)
    assert [file.used for file in intake.files] == [50, 5]
    assert "5 golden rows have another label now" in intake.warnings[0]
    assert f" instead of {wrong['label'].iloc[0]} (row 1 of incoming/" in intake.warnings[0]
    manifest = build_dataset(second, accepted(intake.accepted_uri))
    assert not set(wrong["text"]) & set(snapshots.read(manifest["dataset_id"])["text"])
    corrected = golden.read("m")
    assert corrected is not None
    now = corrected.established.set_index("text")["label"]
    assert (now[wrong["text"]].to_numpy() != wrong["label"].to_numpy()).all()
    assert len(now) == len(golden_set.rows)
    kept = objects.read_json(lake.staging("run:2", "corrections.json"))["rows"]
    assert {row["text"]: row["was"] for row in kept} == dict(zip(wrong["text"], wrong["label"], strict=True))
    assert validate_files(second) == intake, "a repeated task sees the golden set that it saw first"
    assert build_dataset(second, accepted(intake.accepted_uri)) == manifest


def test_a_file_that_changes_many_golden_labels_waits_for_approval(file_lake: str) -> None:
    options, golden_set = begun()
    same = csv(list(golden_set.rows["text"][6:8]), list(golden_set.rows["label"][6:8]))[11:]
    odd_rows = relabelled(golden_set.rows.head(6)) + good(20, start=2000)[11:] + same
    files = {"b.csv": good(50, start=1000), "c.csv": odd_rows}
    fine, odd = validate_files(plan(files, "run:2", **options)).files
    assert (fine.used, fine.waiting, fine.waits_for) == (50, 0, [])
    assert (odd.used, odd.waiting, odd.by_rule) == (0, 26, {"in_golden_set": 2})
    assert odd.waits_for == ["waiting_for_approval"]
    assert "6 of the 44 golden rows have another label in incoming/c.csv (row 1 says " in odd.warnings[0]
    first = list(golden_set.rows["label"][:2])
    assert all(f"instead of {label!r}" in odd.warnings[0] for label in first), "so one sees what would change"
    intake = validate_files(plan(files, "run:3", approved=["b1"], **options))
    assert [file.used for file in intake.files] == [50, 26]


def test_files_that_change_many_golden_labels_only_together_are_told_so(file_lake: str) -> None:
    options, golden_set = begun()
    files = {name: relabelled(golden_set.rows[at : at + 4]) for name, at in (("b.csv", 0), ("c.csv", 4))}
    _, odd = validate_files(plan(files, "run:2", **options)).files
    assert (
        "4 of the 44 golden rows have another label in incoming/c.csv, 8 in all files of this run together (row 1"
        in odd.warnings[0]
    )


def that_wait() -> list[Source]:
    return [Source(uri=uri, key=key, batch_id=batch) for uri, key, batch in newcomers.waiting("m")]


def waiting_texts() -> list[str]:
    files = [pa.ipc.open_file(objects.read_bytes(uri)).read_all() for uri, _, _ in newcomers.waiting("m")]
    return sorted(text for file in files for text in file["text"].to_pylist())


def split_off(golden_set: golden.GoldenSet, at: int, new: int) -> tuple[bytes, list[str]]:
    """A file that gives four golden texts a new label, which some other texts have too; and all these texts."""
    texts = [*golden_set.rows["text"][at : at + 4], *(f"new {at} {number}" for number in range(new))]
    return csv(texts, ["z"] * len(texts)), texts


def test_golden_texts_of_a_label_that_is_too_new_change_nothing_and_wait_with_its_other_rows(file_lake: str) -> None:
    options, golden_set = begun()
    (first, texts), (second, more) = split_off(golden_set, 0, 4), split_off(golden_set, 4, 4)
    validate_files(plan({"b.csv": first}, "run:2", **options))
    newcomers.publish("m", "run:2", [])
    third = plan({"c.csv": second + good(5, start=1000)[11:]}, "run:3", newcomers=that_wait(), **options)
    (file,) = validate_files(third).files
    assert (file.used, file.waiting, file.waits_for) == (5, 8, [])
    newcomers.publish("m", "run:3", [one.uri for one in third.newcomers])
    assert waiting_texts() == sorted(texts + more)


def test_waiting_rows_that_would_change_many_golden_labels_wait_for_approval_and_are_not_lost(file_lake: str) -> None:
    options, golden_set = begun()
    texts: list[str] = []
    for run, at in (("run:2", 0), ("run:3", 4)):
        few, new = split_off(golden_set, at, 4)
        before = that_wait()
        validate_files(plan({f"{at}.csv": few}, run, newcomers=before, **options))
        newcomers.publish("m", run, [one.uri for one in before])
        texts += new
    rest = csv([f"new {at}" for at in range(18)], ["z"] * 18)
    last = plan({"c.csv": rest}, "run:4", newcomers=that_wait(), **options)
    fine, joined, odd = validate_files(last).files
    assert (fine.used, joined.used, odd.waiting, odd.waits_for) == (18, 8, 8, ["waiting_for_approval"])
    approved = plan({"c.csv": rest}, "run:5", newcomers=last.newcomers, approved=["b1"], **options)
    assert validate_files(approved).rows["used"] == 34
    newcomers.publish("m", "run:4", [one.uri for one in last.newcomers])
    assert len(waiting_texts()) == 8
    assert set(waiting_texts()) < set(texts)


def test_a_new_label_waits_until_it_has_enough_rows_and_then_has_golden_ones(file_lake: str) -> None:
    options, _ = begun()
    few = csv([f"new {at}" for at in range(8)], ["z"] * 8) + good(20, start=1000)[11:]
    second = plan({"b.csv": few}, "run:2", **options)
    intake = validate_files(second)
    (file,) = intake.files
    assert (file.used, file.waiting, file.rejected) == (20, 8, 0)
    assert file.warnings[-1].startswith("8 rows wait: label 'z' is new and has 8 good rows; it joins with 20")
    assert set(accepted(intake.accepted_uri)["label"]) == {"x", "y"}
    newcomers.publish("m", "run:2", [])
    newcomers.publish("m", "run:2", [])

    more = csv([f"new {at}" for at in range(4, 20)] + ["new 1"], ["z"] * 16 + ["x"])
    waited = [Source(uri=uri, key=key, batch_id=batch) for uri, key, batch in newcomers.waiting("m")]
    assert [(one.key, one.batch_id) for one in waited] == [("incoming/b.csv", "b1")]
    third = plan({"c.csv": more}, "run:3", newcomers=waited, **options)
    now, before = validate_files(third).files
    assert (now.used, now.waiting, now.by_rule) == (1, 16, {})
    assert (before.waiting, before.by_rule) == (3, {"contradictory_label": 1, "duplicate": 4})
    third = plan({"c.csv": more + b"new 20,z\n"}, "run:3", newcomers=waited, **options)
    intake = validate_files(third)
    rows = accepted(intake.accepted_uri)
    assert len(rows[rows["label"] == "z"]) == 20
    assert "incoming/b.csv row 1" in set(rows["source"])
    assert intake.newcomers == [waited[0].uri]
    manifest = build_dataset(third, rows)
    came = golden.read("m").judging(manifest["golden_origin"])  # type: ignore[union-attr]
    assert (came["label"] == "z").sum() == 6


def test_rows_that_waited_and_made_a_challenger_worse_are_set_aside_and_can_be_taken_back(file_lake: str) -> None:
    options, _ = begun()
    few = csv([f"new {at}" for at in range(8)], ["z"] * 8) + good(20, start=1000)[11:]
    validate_files(plan({"b.csv": few}, "run:2", **options))
    newcomers.publish("m", "run:2", [])
    ((uri, *_),) = newcomers.waiting("m")
    newcomers.set_aside("m", "run:3", [uri])
    assert newcomers.waiting("m") == []
    newcomers.take_back("m", "run:3")
    assert newcomers.waiting("m")[0][0] == uri


def test_a_later_run_overwrites_no_rejected_rows_of_the_upload_whose_rows_had_waited(file_lake: str) -> None:
    options, _ = begun()
    few = csv([*(f"new {at}" for at in range(8)), "", ""], ["z"] * 8 + ["x"] * 2)
    (earlier,) = validate_files(plan({"b.csv": few}, "run:2", **options)).files
    newcomers.publish("m", "run:2", [])
    third = plan({"c.csv": csv(["new 0", ""], ["z", "x"])}, "run:3", newcomers=that_wait(), **options)
    later = third.sources[0].model_copy(update={"batch_id": "b2"})
    files = validate_files(third.model_copy(update={"sources": [later]})).files
    assert [row["rule"] for row in rejected_rows([earlier])] == ["text_empty"] * 2
    assert sorted(row["rule"] for row in rejected_rows(files)) == ["duplicate", "text_empty"]
    lasting = accepted(lake.quarantine("b1", f"rejected-{lake.slug('run:3')}.parquet"))
    assert list(lasting["file"]) == ["incoming/b.csv"]


def test_waiting_rows_whose_label_is_admitted_join_a_run_without_uploads_and_wait_on_if_it_is_not(
    file_lake: str, set_env: Callable[..., None]
) -> None:
    options, _ = begun()
    validate_files(plan({"b.csv": csv([f"new {at}" for at in range(8)], ["z"] * 8)}, "run:2", **options))
    newcomers.publish("m", "run:2", [])
    third = plan({}, "run:3", newcomers=that_wait(), **options)
    rows = accepted(validate_files(third).accepted_uri)
    assert set(rows["label"]) == {"x", "y"}, "the champion's, again"
    newcomers.publish("m", "run:3", [one.uri for one in third.newcomers])
    assert len(waiting_texts()) == 8
    set_env(BERT_ADMITTED_LABELS="z")
    fourth = plan({}, "run:4", newcomers=that_wait(), **options)
    intake = validate_files(fourth)
    assert (intake.accepted_rows, intake.newcomers) == (8, [fourth.newcomers[0].uri])
    manifest = build_dataset(fourth, accepted(intake.accepted_uri))
    assert "z" in manifest["label_counts"]


def test_whoever_corrects_the_label_of_rows_that_wait_is_heard(file_lake: str) -> None:
    options, _ = begun()
    texts = [f"new {at}" for at in range(30)]
    validate_files(plan({"b.csv": csv(texts[:15], ["zz"] * 15)}, "run:2", **options))
    newcomers.publish("m", "run:2", [])
    third = plan({"c.csv": csv(texts, ["z"] * 30)}, "run:3", newcomers=that_wait(), **options)
    now, before = validate_files(third).files
    assert (now.used, now.by_rule) == (30, {})
    assert (before.used, before.by_rule) == (0, {"contradictory_label": 15})
    reason = accepted(str(before.quarantine))["reason"][0]
    assert reason == "the same text came later with the label z (row 1 of incoming/c.csv), which counts"


@pytest.mark.parametrize(
    ("environment", "used", "rule"),
    [
        ({"BERT_NEW_LABELS": "reject"}, 20, {"label_unknown": 8}),
        ({"BERT_NEW_LABELS": "admit"}, 28, {}),
        ({"BERT_ADMITTED_LABELS": "z"}, 28, {}),
        ({"BERT_LABELS": "x,y,z"}, 28, {}),
        ({"BERT_LABELS": "x,y"}, 20, {"label_unknown": 8}),
    ],
    ids=["reject", "admit", "admitted", "allowed", "not allowed"],
)
def test_a_new_label_is_rejected_or_admitted_if_the_settings_say_so(
    file_lake: str, set_env: Callable[..., None], environment: dict[str, str], used: int, rule: dict[str, int]
) -> None:
    options, _ = begun()
    set_env(**environment)
    few = csv([f"new {at}" for at in range(8)], ["z"] * 8) + good(20, start=1000)[11:]
    (file,) = validate_files(plan({"b.csv": few}, "run:2", **options)).files
    assert (file.used, file.by_rule) == (used, rule)


def test_labels_can_be_set(file_lake: str, set_env: Callable[..., None]) -> None:
    set_env(BERT_LABELS="x, y, z")
    intake = validate_files(plan({"a.csv": good(300) + b"odd,w\n"}))
    assert intake.files[0].by_rule == {"label_unknown": 1}


def test_only_good_rows_wait_and_those_that_are_too_few_yet(file_lake: str) -> None:
    intake = validate_files(plan({"a.csv": good(50) + b",x\na rare one,z\n"}))
    assert intake.rows == {"in": 52, "used": 0, "rejected": 1, "waiting": 51}
    assert intake.files[0].by_rule == {"text_empty": 1}
    assert list(accepted(str(intake.files[0].quarantine))["rule"]) == ["text_empty"]


def test_one_label_is_not_enough_for_a_first_model(file_lake: str) -> None:
    same = csv([f"text {at}" for at in range(300)], ["x"] * 300)
    assert "a classifier needs two" in validate_files(plan({"a.csv": same})).missing


def test_a_plan_without_files_takes_the_champions_rows_again(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(validate_files(first).accepted_uri))
    again = plan({}, "run:2", parent_dataset_id=parent["dataset_id"])
    intake = validate_files(again)
    assert intake.accepted_rows == sum(parent["rows"].values())
    assert build_dataset(again, accepted(intake.accepted_uri))["dataset_id"] == parent["dataset_id"]


def test_a_golden_text_in_the_dataset_fails_the_run(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(validate_files(first).accepted_uri))
    train = pd.read_parquet(io.BytesIO(objects.read_bytes(lake.dataset(parent["dataset_id"], "train.parquet"))))
    frozen_once("other", train.head(5))
    tampered = plan({"b.csv": good(20, start=500)}, "run:2", model_name="other", parent_dataset_id=parent["dataset_id"])
    with pytest.raises(golden.GoldenSetError, match="5 golden texts are in"):
        build_dataset(tampered, accepted(validate_files(tampered).accepted_uri))


def test_files_named_by_uri_are_copied_before_they_can_change(file_lake: str) -> None:
    uri = objects.write_bytes(f"{file_lake}/mine/a.csv", good(10))
    (staged,) = copy_to_staging(sources_at(uri), "run:1")
    objects.write_bytes(uri, b"changed")
    assert objects.read_bytes(staged.uri) == good(10)


def test_sources_are_found_by_object_folder_and_pattern(file_lake: str) -> None:
    for name in ("a.csv", "sub/b.csv", "sub/c.jsonl"):
        objects.write_bytes(lake.incoming(name), b"x")
    assert len(sources_at(lake.incoming("a.csv"))) == 1
    assert len(sources_at(lake.incoming("sub/"))) == 2
    assert len(sources_at(lake.incoming("sub/*.csv"))) == 1
    with pytest.raises(FileNotFoundError, match="no file at"):
        sources_at(lake.incoming("nothing/*"))


def test_a_repeated_row_names_the_file_and_row_it_repeats(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(validate_files(first).accepted_uri))
    golden_set = golden.read("m")
    assert golden_set is not None
    known = snapshots.read(parent["dataset_id"]).iloc[0]
    again = csv(["New one", "new  ONE", known["text"]], ["x", "x", known["label"]])
    second = plan({"b.csv": again}, "run:2", parent_dataset_id=parent["dataset_id"])
    (file,) = validate_files(second).files
    rejected = accepted(str(file.quarantine)).set_index("rule")["reason"]
    assert rejected["duplicate"] == "the same text and label came in row 1 of incoming/b.csv"
    assert rejected["already_known"].endswith(f"from {known['source']}")
    assert known["source"].startswith("incoming/a.csv row ")


def test_a_contradiction_names_both_files_and_rows(file_lake: str) -> None:
    intake = validate_files(plan({"a.csv": csv(["same"], ["x"]), "b.csv": good(300) + b"Same,y\n"}))
    reason = accepted(str(intake.files[0].quarantine))["reason"][0]
    assert "x (row 1 of incoming/a.csv), y (row 301 of incoming/b.csv)" in reason


def test_other_columns_and_where_a_row_came_from_stay_with_it(file_lake: str) -> None:
    rows = "".join(f"{at},text {at},{'xy'[at % 2]},de\n" for at in range(300))
    first = plan({"a.csv": f"id,text,label,lang\n{rows}".encode()})
    manifest = build_dataset(first, accepted(validate_files(first).accepted_uri))
    row = snapshots.read(manifest["dataset_id"]).set_index("text").loc["text 7"]
    assert json.loads(row["extra"]) == {"id": "7", "lang": "de"}
    assert row["source"] == "incoming/a.csv row 8"


def test_a_dataset_from_before_there_were_such_columns_is_built_on(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(validate_files(first).accepted_uri))
    for split in lake.SPLITS:
        uri = lake.dataset(parent["dataset_id"], f"{split}.parquet")
        old = pd.read_parquet(io.BytesIO(objects.read_bytes(uri)))[["text", "label"]]
        objects.write_bytes(uri, old.to_parquet(index=False))
    rows = snapshots.read(parent["dataset_id"])
    assert snapshots.order(rows)[1] == parent["dataset_id"]
    second = plan({"b.csv": good(100, 1000)}, "run:2", parent_dataset_id=parent["dataset_id"])
    manifest = build_dataset(second, accepted(validate_files(second).accepted_uri))
    came = golden.read("m").judging(manifest["golden_origin"])  # type: ignore[union-attr]
    assert sum(manifest["rows"].values()) == sum(parent["rows"].values()) + 100 - len(came)


def test_a_file_is_read_in_a_process_of_its_own_and_may_kill_it(
    file_lake: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A Python that kills itself when it is to read that file, as the kernel does when memory runs out.
    killer = tmp_path / "python"
    killer.write_text(f'#!/bin/sh\ncase "$*" in *too\\ much*) kill -9 $$;; esac\nexec {sys.executable} "$@"\n')
    killer.chmod(0o755)
    monkeypatch.setattr("include.datasets.spool.sys.executable", str(killer))
    intake = validate_files(plan({"a.csv": good(300), "too much.csv": good(10, 900)}), isolated=True)
    assert intake.files[0].used == 300
    assert intake.files[1].by_rule == {"unreadable_file": 1}
    assert "was killed (signal 9)" in intake.files[1].reason


def test_a_pattern_takes_only_the_star_for_one(file_lake: str) -> None:
    for name in ("a[1].csv", "a1.csv", "what?.csv", "whats.csv", "deep/er/x.csv", "[x]/y.csv"):
        objects.write_bytes(f"{file_lake}/mine/{lake.plain(name)}", b"x")

    def found(uri: str) -> list[str]:
        return [source.key.rsplit("mine/", 1)[1] for source in sources_at(f"{file_lake}/mine/{uri}")]

    assert found("a[1].csv") == ["a[1].csv"]
    assert found("a[1]*") == ["a[1].csv"]
    assert found("a*.csv") == ["a1.csv", "a[1].csv"]
    assert found("[x]/*") == ["[x]/y.csv"]
    assert found("deep*") == ["deep/er/x.csv"]


def test_what_programs_leave_beside_their_data_is_no_source(file_lake: str) -> None:
    for name in ("_SUCCESS", ".part-0.csv.crc", "part-0.csv", "x_$folder$", ".DS_Store"):
        objects.write_bytes(f"{file_lake}/mine/{name}", b"x")
    assert [source.key.rsplit("/", 1)[1] for source in sources_at(f"{file_lake}/mine/")] == ["part-0.csv"]


def test_files_that_unpack_to_too_much_are_not_read(file_lake: str, set_env: Callable[..., None]) -> None:
    set_env(BERT_MAX_UNPACKED_GIB="0.001")
    bomb = gzip.compress(b"text,label\n" + b"a" * 50_000_000)
    repeated = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 1000] * 100_000, "label": ["y"] * 100_000}), repeated)
    intake = validate_files(plan({"bomb.csv.gz": bomb, "many.parquet": repeated.getvalue()}))
    assert len(bomb) + len(repeated.getvalue()) < 200_000
    for file in intake.files:
        assert "unpacks to more than 0.001 GiB (BERT_MAX_UNPACKED_GIB)" in file.reason


def test_accepted_rows_can_be_told_from_any_others(file_lake: str) -> None:
    intake = validate_files(plan({"a.csv": good(300)}))
    rows = accepted(intake.accepted_uri).sample(frac=1, random_state=1)

    def found(frame: pd.DataFrame) -> str:
        return rows_hash(text_keys(frame["text"]), frame["label"].value_counts().to_dict())

    assert found(rows) == intake.accepted_hash
    others = [rows.head(299), rows.assign(text="other"), rows.assign(label="x"), pd.concat([rows, rows.head(1)])]
    assert intake.accepted_hash not in {found(other) for other in others}


def test_a_run_can_name_its_columns(file_lake: str, set_env: Callable[..., None]) -> None:
    set_env(BERT_TEXT_COLUMN="Frage")
    content = good(300).replace(b"text,label", b"Betreff,Team")
    assert validate_files(plan({"a.csv": content}, text_column="Betreff", label_column="Team")).accepted_rows == 300
    assert "'Frage', which was named, is not there" in validate_files(plan({"a.csv": content}, "run:2")).files[0].reason


def test_no_first_model_is_trained_without_a_class_whose_bytes_are_odd(file_lake: str) -> None:
    odd = b"".join(b"odd %d,r\xe9clamation\n" % at for at in range(20))
    intake = validate_files(plan({"a.csv": good(300) + "über,x\n".encode() + odd}))
    assert intake.files[0].by_rule == {"wrong_encoding": 20}
    assert "20 rows, would be missing: its bytes in incoming/a.csv" in intake.missing
    assert intake.rows["waiting"] == 301


@pytest.mark.parametrize("lost", ["", '"lost,x\n'])
def test_a_large_file_is_read_in_parts_and_nothing_is_different(
    lost: str, file_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f'"text ""{at}"",\nand more",{"xy"[at % 2]},{at}\n' for at in range(2000))
    content = f"text,label,id\n{rows}{lost}last one,x,\n".encode()
    whole = validate_files(plan({"a.csv": content}))
    assert whole.files[0].used == 2001
    at_once = accepted(whole.accepted_uri)
    monkeypatch.setattr(spool, "LARGE_BYTES", 1000)
    monkeypatch.setattr(spool, "cpu_count", lambda: 3)
    parts = spool._spool_parts
    came_together = []
    monkeypatch.setattr(spool, "_spool_parts", lambda jobs: came_together.append(parts(jobs)) or came_together[-1])
    in_parts = validate_files(plan({"a.csv": content}, "run:2"))
    assert (in_parts.rows, in_parts.files[0].by_rule) == (whole.rows, whole.files[0].by_rule)
    pd.testing.assert_frame_equal(accepted(in_parts.accepted_uri), at_once)
    # With damage no part can be trusted, and the file is read at once.
    assert [together is not None for together in came_together] == [not lost]


def test_feedback_does_not_change_what_a_golden_row_says(file_lake: str) -> None:
    frozen_once("fed", pd.DataFrame({"text": ["text 1", "text 2"], "label": ["x", "y"]}))
    rows = csv(["text 1", "text 2", "text 3"], ["y", "y", "x"])
    intake = validate_files(plan({"feedback/fed-2026-11-26.csv": rows, "a.csv": good(300, start=10)}, model_name="fed"))
    by_file = {file.key: file for file in intake.files}
    fed = by_file["incoming/feedback/fed-2026-11-26.csv"]
    assert (fed.used, fed.by_rule) == (1, {"in_golden_set": 2})
    assert not any("golden rows have another label" in warning for warning in intake.warnings)
