"""Labels that are renamed or merged: in uploads, in the champion's rows, in golden rows and in models' answers."""

import io
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from include import lake, objects, renaming
from include.datasets import golden, newcomers, snapshots
from include.datasets.building import build_dataset
from include.datasets.intake import Plan, Source, validate_files

MERGED = {"bills": "invoices", "billing": "invoices"}


def rows(start: int, n: int, *labels: str) -> pd.DataFrame:
    names = [labels[at % len(labels)] for at in range(n)]
    return pd.DataFrame({"text": [f"text {at}" for at in range(start, start + n)], "label": names})


def plan(frame: pd.DataFrame | None, run_id: str, **options: Any) -> Plan:
    sources = []
    if frame is not None:
        uri = objects.write_bytes(lake.claims(run_id, "files/a.csv"), frame.to_csv(index=False).encode())
        sources.append(Source(batch_id=run_id, key="incoming/a.csv", uri=uri))
    return Plan(**{"run_id": run_id, "model_name": "m", "sources": sources, "parent_dataset_id": None} | options)


def build(wanted: Plan) -> tuple[dict[str, Any], pd.DataFrame]:
    accepted = pd.read_parquet(io.BytesIO(objects.read_bytes(validate_files(wanted).accepted_uri)))
    manifest = build_dataset(wanted, accepted)
    return manifest, snapshots.read(manifest["dataset_id"])


def state() -> golden.GoldenSet:
    found = golden.read("m")
    assert found is not None
    return found


def sides() -> dict[str, int]:
    texts = [f"text {at}" for at in range(1000)]
    return {text: side for text, side in zip(texts, state().sides.of(texts).tolist(), strict=True) if side >= 0}


@pytest.fixture
def champion(file_lake: str) -> dict[str, Any]:
    """A champion of three labels: what a plan after it names."""
    manifest, _ = build(plan(rows(0, 300, "billing", "bills", "refund"), "run:1"))
    frozen = golden.follow("m", [manifest["dataset_id"]], "promoted", mapping=manifest["label_mapping"])
    return {"parent_dataset_id": manifest["dataset_id"], "golden_number": frozen.number}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"": "a"}, "a name is empty"),
        ({"a": " "}, "a name is empty"),
        ({"a": "a"}, "'a' → 'a' goes round in a circle"),
        ({"a": "b", "b": "a"}, "goes round in a circle"),
        ({"x": "a", "a": "b", "b": "a"}, "goes round in a circle"),
        ({"a": "b", "b": "c"}, "'a' → 'b' → 'c' is a chain; map each old name to the last one: 'c'"),
        ({"a b": "c", "a  b": "d"}, "it maps a name twice"),
    ],
    ids=str,
)
def test_a_mapping_that_makes_no_sense_is_refused(mapping: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        renaming.check(mapping)


def test_what_went_live_stays_and_may_be_renamed_again() -> None:
    live = {"billing": "invoices"}
    assert renaming.combine(live, {}) == renaming.combine(live, live) == live
    assert renaming.combine(live, {"invoices": "payments"}) == {"billing": "payments", "invoices": "payments"}
    assert renaming.combine(live, {"billing": "payments", "invoices": "payments"})["billing"] == "payments"
    assert renaming.combine(live, {"invoices": "billing"}) == {"invoices": "billing"}, "it may have its name back"
    assert renaming.combine(live, {"billing": "payments"}) == live
    assert renaming.unheeded(live, live) == renaming.unheeded(live, {"invoices": "payments"}) == []
    other = {"payments": "billing"}
    assert renaming.combine(live, other) == {"billing": "invoices", "payments": "invoices"}, "billing stays renamed"
    (told,) = renaming.unheeded(live, other)
    assert told.startswith("'payments' is called 'invoices', for 'billing' was renamed to that before")
    (told,) = renaming.unheeded(live, {"billing": "payments"})
    assert told.startswith("'billing' is not called 'payments': it was renamed to 'invoices'")


def test_rows_with_an_old_label_count_as_the_new_one_and_nothing_changes_sides(champion: dict[str, Any]) -> None:
    before, sides_before = state(), sides()
    new = pd.concat([rows(500, 12, '"billing" '), rows(600, 40, "refund", "invoices")])
    wanted = plan(new, "run:2", label_mapping=MERGED, **champion)
    intake = validate_files(wanted)
    (file,) = intake.files
    assert (file.used, file.waiting, file.rejected) == (52, 0, 0), "the new name is not new: nothing waits"
    assert "12 rows: billing → invoices" in file.warnings
    trained = sum(1 for text, side in sides_before.items() if side < 2 and int(text.split()[1]) % 3 == 0)
    judging = (before.rows["label"] == "billing").sum()
    assert (
        f"billing → invoices: {trained} rows of the champion's dataset and {judging} golden rows change names"
        in intake.warnings
    )
    manifest, dataset = build(wanted)
    assert set(dataset["label"]) == {"invoices", "refund"}
    assert manifest["label_mapping"] == MERGED
    assert manifest["relabelled_rows"] == 0
    assert not objects.exists(lake.staging("run:2", "corrections.json"))
    assert {text: side for text, side in sides().items() if text in sides_before} == sides_before
    judges = state().renamed(MERGED).judging(manifest["golden_origin"])
    assert set(judges["label"]) == {"invoices", "refund"}
    assert set(before.established["text"]) == set(judges["text"][judges["established"]])


def test_golden_rows_keep_their_old_labels_until_a_version_with_the_new_ones_is_promoted(
    champion: dict[str, Any],
) -> None:
    before = state()
    manifest, _ = build(plan(rows(500, 60, "billing", "refund"), "run:2", label_mapping=MERGED, **champion))
    rejected = state()
    assert rejected.established["label"].tolist() == before.established["label"].tolist(), "it can still be taken back"
    assert {label: rejected.thresholds[label] for label in before.thresholds} == before.thresholds
    promoted = golden.follow(
        "m", [manifest["dataset_id"], champion["parent_dataset_id"]], "promoted", mapping=manifest["label_mapping"]
    )
    assert promoted.labels == ["invoices", "refund"]
    assert (promoted.label_mapping, state().label_mapping) == (MERGED, MERGED)
    lowest = min(before.thresholds["billing"].golden, before.thresholds["bills"].golden)
    assert promoted.thresholds["invoices"].golden == lowest
    back = golden.follow("m", [champion["parent_dataset_id"]], "rolled back")
    assert back.labels == ["invoices", "refund"], "the old version's answers and rows are mapped"
    after = {"parent_dataset_id": champion["parent_dataset_id"], "golden_number": back.number}
    mapping = renaming.combine(back.label_mapping, {})
    _, dataset = build(plan(rows(700, 30, "bills", "refund"), "run:3", label_mapping=mapping, **after))
    assert set(dataset["label"]) == {"invoices", "refund"}, "though the setting is gone"


def test_a_run_without_files_renames_the_champions_rows(champion: dict[str, Any]) -> None:
    wanted = plan(None, "run:2", label_mapping={"billing": "invoices"}, **champion)
    assert "billing → invoices: " in validate_files(wanted).warnings[0]
    manifest, dataset = build(wanted)
    assert set(dataset["label"]) == {"invoices", "bills", "refund"}
    assert manifest["rows"] == objects.read_json(lake.dataset(champion["parent_dataset_id"], "manifest.json"))["rows"]


def test_a_golden_row_that_comes_under_its_other_name_is_no_correction(champion: dict[str, Any]) -> None:
    judging = state().established
    again = judging[["text", "label"]].replace({"label": MERGED})
    renamed = validate_files(plan(again, "run:2", label_mapping=MERGED, **champion)).files[0]
    assert renamed.by_rule == {"in_golden_set": len(again)}
    unmapped = validate_files(plan(again, "run:3", **champion)).files[0]
    assert unmapped.waits_for == ["waiting_for_approval"], "without the mapping a person would have to look at them"


def test_rows_that_waited_under_a_new_name_join_the_label_that_they_are_mapped_to(champion: dict[str, Any]) -> None:
    validate_files(plan(rows(500, 8, "invoicing"), "run:2", **champion))
    newcomers.publish("m", "run:2", [])
    waited = [Source(uri=uri, key=key, batch_id=batch) for uri, key, batch in newcomers.waiting("m")]
    mapping = {"invoicing": "billing"}
    joined = validate_files(plan(rows(600, 5, "refund"), "run:3", newcomers=waited, label_mapping=mapping, **champion))
    assert [(file.used, file.waiting) for file in joined.files] == [(5, 0), (8, 0)]
    new = validate_files(plan(rows(500, 8, "a"), "run:4", label_mapping={"a": "b"}, **champion)).files[0]
    assert new.waiting == 8, "a mapping alone makes no label known"


@pytest.mark.parametrize(
    ("environment", "used", "rejected"),
    [
        ({"BERT_LABELS": "billing,bills,refund"}, 8, {}),
        ({"BERT_LABELS": "invoices,refund"}, 8, {}),
        ({"BERT_NEW_LABELS": "reject"}, 8, {}),
        ({"BERT_LABELS": "refund"}, 4, {"label_unknown": 4}),
    ],
    ids=["old names allowed", "new name allowed", "no new labels", "neither allowed"],
)
def test_labels_that_are_allowed_are_renamed_too(
    champion: dict[str, Any],
    set_env: Callable[..., None],
    environment: dict[str, str],
    used: int,
    rejected: dict[str, int],
) -> None:
    set_env(**environment)
    frame = rows(500, 8, "billing", "refund")
    file = validate_files(plan(frame, "run:2", label_mapping=MERGED, **champion)).files[0]
    assert (file.used, file.by_rule) == (used, rejected)


def test_a_first_model_learns_the_new_names(file_lake: str) -> None:
    mapping = {"TRUE": "yes", "0": "no"}
    _, dataset = build(plan(rows(0, 300, "true", "0.0"), "run:1", label_mapping=mapping))
    assert set(dataset["label"]) == {"yes", "no"}
