import io
from collections.abc import Callable

import pandas as pd
import pytest

from include import lake
from include.datasets import golden, snapshots
from include.datasets.intake import Plan, Source, build_dataset, sources_at, stage, take_in


def csv(texts: list[str], labels: list[str]) -> bytes:
    return pd.DataFrame({"text": texts, "label": labels}).to_csv(index=False).encode()


def good(n: int, start: int = 0) -> bytes:
    return csv([f"text {i}" for i in range(start, start + n)], ["x" if i % 2 else "y" for i in range(n)])


def plan(files: dict[str, bytes], run_id: str = "run:1", **options: object) -> Plan:
    sources = []
    for name, content in files.items():
        uri = lake.write_bytes(lake.claims("b1", f"files/{name}"), content)
        sources.append(Source(batch_id="b1", key=f"incoming/{name}", uri=uri))
    defaults = {"model_name": "m", "sources": sources, "parent_dataset_id": None, "golden_sha256": None}
    return Plan(run_id=run_id, **(defaults | options))  # type: ignore[arg-type]


def accepted(uri: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(lake.read_bytes(uri)))


def test_every_row_of_every_file_is_accounted_for(file_lake: str) -> None:
    bad = csv(["", "new", "text 1"], ["x", "", "y"])
    intake = take_in(plan({"a b/ü+.csv": good(300), "bad.csv": bad, "n.csv": b"%PDF"}))
    assert intake.rows == {"in": 304, "used": 299, "rejected": 5, "waiting": 0}
    by_file = {file.key: file.by_rule for file in intake.files}
    assert by_file["incoming/a b/ü+.csv"] == {"contradictory_label": 1}
    assert by_file["incoming/bad.csv"] == {"contradictory_label": 1, "label_missing": 1, "text_empty": 1}
    assert by_file["incoming/n.csv"] == {"unreadable_file": 1}


def test_rejected_rows_lie_in_quarantine_with_rule_and_reason(file_lake: str) -> None:
    intake = take_in(plan({"a.csv": good(300) + "über,x\n".encode() + b"caf\xe9,x\n,y\n"}))
    assert intake.files[0].quarantine == lake.quarantine("b1", "rejected.parquet")
    rejected = accepted(intake.files[0].quarantine)
    assert list(rejected["rule"]) == ["wrong_encoding", "text_empty"]
    assert list(rejected["row"]) == [302, 303]
    assert rejected["text"][0] == "caf\\udce9"


def test_an_unreadable_file_is_kept_whole_with_its_reason(file_lake: str) -> None:
    intake = take_in(plan({"x/no table.csv": b"%PDF-1.4"}))
    assert intake.accepted_rows == 0
    uri = lake.quarantine("b1", "files/x/no table.csv")
    assert lake.read_bytes(uri) == b"%PDF-1.4"
    assert "a PDF" in lake.read_json(f"{uri}.reason.json")["reason"]


def test_too_few_rows_for_a_first_model_wait(file_lake: str) -> None:
    intake = take_in(plan({"a.csv": good(50)}))
    assert "first model needs 200" in intake.missing
    assert intake.rows == {"in": 50, "used": 0, "rejected": 0, "waiting": 50}


def test_the_first_dataset_freezes_a_golden_set_and_keeps_it_out(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    manifest = build_dataset(first, accepted(take_in(first).accepted_uri))
    frozen = golden.read("m")
    assert frozen is not None
    assert len(frozen.rows) + sum(manifest["rows"].values()) == 300
    assert not set(snapshots.read(manifest["dataset_id"])["text"]) & set(frozen.rows["text"])


def test_the_second_dataset_adds_to_the_champions(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(take_in(first).accepted_uri))
    frozen = golden.read("m")
    assert frozen is not None
    leaking = csv(list(frozen.rows["text"][:3]), list(frozen.rows["label"][:3]))
    second = plan(
        {"b.csv": good(100, start=1000), "c.csv": leaking},
        "run:2", parent_dataset_id=parent["dataset_id"], golden_sha256=frozen.sha256,
    )  # fmt: skip
    intake = take_in(second)
    assert intake.files[1].by_rule == {"in_golden_set": 3}
    manifest = build_dataset(second, accepted(intake.accepted_uri))
    assert sum(manifest["rows"].values()) == sum(parent["rows"].values()) + 100


def test_a_run_that_is_repeated_gives_the_same_dataset(file_lake: str) -> None:
    first = plan({"a.csv": good(300)}).pin()
    once = build_dataset(first, accepted(take_in(first).accepted_uri))
    again = plan({"b.csv": good(10)}).pin()
    assert again == first, "the pinned plan counts, not what is there by now"
    assert build_dataset(again, accepted(take_in(again).accepted_uri)) == once


def test_labels_can_be_set(file_lake: str, set_env: Callable[..., None]) -> None:
    set_env(BERT_LABELS="x, y, z")
    intake = take_in(plan({"a.csv": good(300) + b"odd,w\n"}))
    assert intake.files[0].by_rule == {"label_unknown": 1}


def test_only_good_rows_wait_and_those_that_are_too_few_yet(file_lake: str) -> None:
    intake = take_in(plan({"a.csv": good(50) + b",x\na rare one,z\n"}))
    assert intake.rows == {"in": 52, "used": 0, "rejected": 1, "waiting": 51}
    assert intake.files[0].by_rule == {"text_empty": 1}
    assert list(accepted(str(intake.files[0].quarantine))["rule"]) == ["text_empty"]


def test_one_label_is_not_enough_for_a_first_model(file_lake: str) -> None:
    same = csv([f"text {at}" for at in range(300)], ["x"] * 300)
    assert "a classifier needs two" in take_in(plan({"a.csv": same})).missing


def test_a_plan_without_files_takes_the_champions_rows_again(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(take_in(first).accepted_uri))
    again = plan({}, "run:2", parent_dataset_id=parent["dataset_id"], golden_sha256=parent["golden_sha256"])
    intake = take_in(again)
    assert intake.accepted_rows == sum(parent["rows"].values())
    assert build_dataset(again, accepted(intake.accepted_uri))["dataset_id"] == parent["dataset_id"]


def test_a_golden_text_in_the_dataset_fails_the_run(file_lake: str) -> None:
    first = plan({"a.csv": good(300)})
    parent = build_dataset(first, accepted(take_in(first).accepted_uri))
    train = pd.read_parquet(io.BytesIO(lake.read_bytes(lake.dataset(parent["dataset_id"], "train.parquet"))))
    golden.freeze("other", train.head(5))
    tampered = plan({"b.csv": good(20, start=500)}, "run:2", model_name="other", parent_dataset_id=parent["dataset_id"])
    with pytest.raises(golden.GoldenSetError, match="5 golden texts are in"):
        build_dataset(tampered, accepted(take_in(tampered).accepted_uri))


def test_files_named_by_uri_are_copied_before_they_can_change(file_lake: str) -> None:
    uri = lake.write_bytes(f"{file_lake}/mine/a.csv", good(10))
    (staged,) = stage(sources_at(uri), "run:1")
    lake.write_bytes(uri, b"changed")
    assert lake.read_bytes(staged.uri) == good(10)


def test_sources_are_found_by_object_folder_and_pattern(file_lake: str) -> None:
    for name in ("a.csv", "sub/b.csv", "sub/c.jsonl"):
        lake.write_bytes(lake.incoming(name), b"x")
    assert len(sources_at(lake.incoming("a.csv"))) == 1
    assert len(sources_at(lake.incoming("sub/"))) == 2
    assert len(sources_at(lake.incoming("sub/*.csv"))) == 1
    with pytest.raises(FileNotFoundError, match="no file at"):
        sources_at(lake.incoming("nothing/*"))
