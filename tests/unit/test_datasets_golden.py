import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include import lake, objects
from include.datasets import golden, snapshots
from include.datasets.building import build_dataset
from include.datasets.intake import Plan
from include.datasets.sides import Side
from include.renaming import combine

MODELS = (f"model-{number}" for number in itertools.count())


def rows(texts: range, labels: str = "xy") -> pd.DataFrame:
    label = [labels[at % len(labels)] for at in texts]
    return pd.DataFrame({"text": [f"text {at}" for at in texts], "label": label, "source": "a.csv", "extra": ""})


def build(
    model: str, accepted: pd.DataFrame, parent: str | None = None, mapping: dict[str, str] | None = None
) -> dict[str, Any]:
    plan = Plan(run_id="run", model_name=model, sources=[], parent_dataset_id=parent, label_mapping=mapping or {})
    return build_dataset(plan, accepted)


def state(model: str) -> golden.GoldenSet:
    found = golden.read(model)
    assert found is not None
    return found


def frozen_once(model: str, frame: pd.DataFrame) -> None:
    """A golden set as it was written before there were states."""
    content = frame[["text", "label"]].to_parquet(index=False)
    sha256 = hashlib.sha256(content).hexdigest()
    uri = objects.write_bytes(lake.golden(model, f"{sha256[:16]}.parquet"), content)
    objects.write_json(lake.golden(model, "golden.json"), {"uri": uri, "sha256": sha256, "rows": len(frame)})


def test_golden_rows_judge_once_a_version_of_their_upload_was_promoted(file_lake: str) -> None:
    first = build("m", rows(range(200)))
    assert state("m").established.empty
    golden.follow("m", [first["dataset_id"]], "promoted")
    before = state("m")
    assert len(before.established) == len(before.rows) > 0
    second = build("m", rows(range(200, 400)), first["dataset_id"])
    came = set(state("m").rows["text"]) - set(before.rows["text"])
    assert came
    assert set(state("m").established["text"]) == set(before.rows["text"])
    assert set(state("m").judging(second["golden_origin"])["text"]) == set(before.rows["text"]) | came
    golden.follow("m", [second["dataset_id"], first["dataset_id"]], "promoted")
    assert set(state("m").established["text"]) == set(before.rows["text"]) | came


def test_a_rollback_takes_the_rows_of_the_version_it_leaves_back_and_a_return_brings_them(file_lake: str) -> None:
    first = build("m", rows(range(200)))["dataset_id"]
    second = build("m", rows(range(200, 400)), first)["dataset_id"]
    both = golden.follow("m", [second, first], "promoted")
    assert len(golden.follow("m", [first], "rolled back").established) < len(both.established)
    assert golden.follow("m", [second, first], "and forth").established.equals(both.established)


def test_rows_that_come_again_came_with_both_uploads_and_with_another_label_with_the_later(file_lake: str) -> None:
    first = build("m", rows(range(200)))["dataset_id"]
    golden.follow("m", [first], "promoted")
    waits = build("m", rows(range(200, 400)), first)["dataset_id"]
    again = build("m", rows(range(200, 450)), first)["dataset_id"]
    for upload in (waits, again):
        judges = golden.follow("m", [upload, first], "promoted").established
        assert (judges["origin"] == f"{waits} {again}").any(), "whichever of the two goes live"
    golden.follow("m", [first], "rolled back")
    swapped = rows(range(200, 400))
    swapped["label"] = swapped["label"].map({"x": "y", "y": "x"})
    other = build("m", swapped, first)["dataset_id"]
    came = state("m").rows[~state("m").rows["established"]]
    assert set(came["origin"]) == {other, again}


def test_the_same_rows_upon_another_dataset_are_another_dataset_with_ancestors_of_its_own(file_lake: str) -> None:
    one, two = rows(range(200, 300)), rows(range(300, 400))
    first = build("m", rows(range(200)))["dataset_id"]
    golden.follow("m", [first], "promoted")
    second = build("m", one, first)["dataset_id"]
    third = build("m", two, second)["dataset_id"]
    golden.follow("m", [third, second, first], "promoted")
    golden.follow("m", [first], "rolled back")
    other = build("m", two, first)["dataset_id"]
    last = build("m", one, other)
    assert last["parent_dataset_id"] == other
    assert set(snapshots.read(last["dataset_id"])["text"]) == set(snapshots.read(third)["text"])
    assert golden.follow("m", [last["dataset_id"], other, first], "promoted").established["text"].size == len(
        state("m").rows
    )


def test_corrections_are_counted_again_where_golden_rows_were_established_since_the_file_was_compared(
    file_lake: str,
) -> None:
    first = build("m", rows(range(200)))["dataset_id"]
    golden.follow("m", [first], "promoted")
    waits = build("m", rows(range(200, 400)), first)["dataset_id"]
    compared = state("m").number
    golden.change("m", lambda last: last.vouched(waits), "a person said so")
    swapped = rows(range(200, 400))
    swapped["label"] = swapped["label"].map({"x": "y", "y": "x"})
    plan = Plan(run_id="late", model_name="m", sources=[], parent_dataset_id=first, golden_number=compared)
    with pytest.raises(golden.GoldenSetError, match="golden rows get another label, and no more than"):
        build_dataset(plan, swapped)


def test_rows_that_come_without_anything_to_learn_judge_with_the_next_champion(file_lake: str) -> None:
    first = build("m", rows(range(200)))["dataset_id"]
    golden.follow("m", [first], "promoted")
    new = rows(range(1000, 1200))
    first_state = state("m")
    at = dict(zip(new["text"], _sides(first_state, new), strict=True))
    only_golden = new[new["text"].map(at) == Side.GOLDEN]
    assert len(only_golden)
    same = build("m", only_golden, first)
    assert same["dataset_id"] == first
    assert len(golden.follow("m", [first], "nothing new").established) == len(first_state.rows)
    third = build("m", rows(range(400, 500)), first)["dataset_id"]
    assert set(only_golden["text"]) <= set(golden.follow("m", [third, first], "promoted").established["text"])


def _sides(known: golden.GoldenSet, frame: pd.DataFrame) -> Any:
    from include.datasets.sides import assign

    return assign(frame, known.thresholds, known.sides)


def test_labels_give_golden_rows_to_training_as_they_grow_and_keep_ten(file_lake: str) -> None:
    few = pd.DataFrame({"text": [f"few {at}" for at in range(30)], "label": "z", "source": "", "extra": ""})
    first = build("m", pd.concat([rows(range(600)), few]))["dataset_id"]
    before = golden.follow("m", [first], "promoted")
    after = golden.follow("m", [first], "promoted", golden_max_rows=40)
    assert after.established["label"].value_counts().to_dict() == {"x": 15, "y": 15, "z": 10}
    assert golden.follow("m", [first], "repeated", golden_max_rows=40).number == after.number
    assert golden.follow("m", [first], "still", golden_max_rows=20).established["label"].value_counts().max() == 10
    after = golden.follow("m", [first], "repeated", golden_max_rows=20)
    moved = set(before.rows["text"]) - set(after.rows["text"])
    assert set(after.moved["text"]) == moved
    second = build("m", rows(range(600, 700)), first)["dataset_id"]
    assert moved <= set(snapshots.read(second)["text"]), "the next model learns them"
    assert golden.follow("m", [first], "rolled back").moved["text"].tolist() == after.moved["text"].tolist()
    new = state("m").rows[state("m").rows["origin"] == second]
    assert len(new) < 10, "fewer of the new rows are golden"


def test_a_state_is_written_once_and_only_if_something_changes(file_lake: str) -> None:
    first = build("m", rows(range(200)))["dataset_id"]
    build("m", rows(range(200)))
    assert state("m").number == 1
    golden.follow("m", [first], "promoted")
    golden.follow("m", [first], "promoted")
    assert state("m").number == 2
    with pytest.raises(golden.GoldenSetError, match="changed"):
        golden.change("m", lambda last: last, "late", of=1)


def test_only_the_newest_states_keep_the_sides_of_all_texts(file_lake: str) -> None:
    first = build("m", rows(range(200)))["dataset_id"]
    golden.follow("m", [first], "promoted")
    for at in range(3):
        build("m", rows(range(1000 + 50 * at, 1050 + 50 * at)), first)
    newest = state("m")
    assert len(newest.sides.table) == 350
    kept = [uri for uri in objects.find(lake.golden("m")) if uri.endswith(".parquet")]
    named = [
        objects.read_json(lake.golden("m", f"states/{at:06d}.json"))["sha256"] for at in range(1, newest.number + 1)
    ]
    there = [any(one["sides"][:16] in uri for uri in kept) for one in named]
    assert there == [at >= newest.number - 2 for at in range(newest.number)]
    earlier = golden.read("m", 2)
    assert earlier is not None
    assert len(earlier.established) == len(newest.established)


def test_a_changed_file_is_refused(file_lake: str) -> None:
    build("m", rows(range(200)))
    for uri in objects.find(lake.golden("m")):
        if uri.endswith(".parquet"):
            objects.write_bytes(uri, b"other rows")
    with pytest.raises(golden.GoldenSetError, match="changed after it was written"):
        golden.read("m")


def test_a_leak_is_found_by_normalised_text(file_lake: str) -> None:
    frozen_once("m", rows(range(10)))
    golden.check_no_leak(pd.Series(["something else"]), state("m"), "s3://d")
    with pytest.raises(golden.GoldenSetError, match=r"1 golden texts are in s3://d, for example 'TEXT  3'"):
        golden.check_no_leak(pd.Series(["TEXT  3", "other"]), state("m"), "s3://d")


def test_a_set_that_was_frozen_before_keeps_its_rows_and_grows(file_lake: str) -> None:
    old = snapshots.write(rows(range(200)).assign(split="train"), {"parent_dataset_id": None})["dataset_id"]
    frozen_once("m", rows(range(200, 240)))
    golden.adopt("m", [snapshots.read(old)])
    adopted = golden.follow("m", [old], "as it was")
    assert set(adopted.established["text"]) == set(rows(range(200, 240))["text"])
    second = build("m", rows(range(150, 200), "yx").copy(), old)["dataset_id"]
    assert len(snapshots.read(second)) == 200, "what a version was trained on stays in training"
    third = build("m", rows(range(300, 600)), old)
    came = state("m").rows[state("m").rows["origin"] == third["golden_origin"]]
    assert 0 < len(came) < 300


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("upload"),
            st.integers(0, 12),  # the first tens of texts
            st.integers(1, 6),  # how many tens
            st.sampled_from(["xy", "yx", "xyz"]),
            st.sampled_from(["promoted", "rejected", "repeated"]),
            st.sampled_from([{}, {}, {"z": "y"}, {"x": "w"}, {"w": "x"}]),  # labels that are merged or renamed
        ),
        st.tuples(st.just("rollback"), st.integers(0, 5)),
    ),
    min_size=2,
    max_size=9,
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(ACTIONS)
def test_no_text_changes_sides_and_no_model_is_judged_by_what_it_learnt(
    file_lake: str, set_env: Callable[..., None], actions: list[tuple[Any, ...]]
) -> None:
    set_env(BERT_GOLDEN_MAX_ROWS="24")
    model = next(MODELS)
    champions: list[str] = []
    learnt: dict[str, set[str]] = {}
    sides: dict[str, Side] = {}
    parents: dict[str, str | None] = {}

    def ancestry(dataset: str | None) -> list[str]:
        return [] if dataset is None else [dataset, *ancestry(parents[dataset])]

    for action in actions:
        if action[0] == "rollback":
            if champions:
                champions.append(champions[action[1] % len(champions)])
                golden.follow(model, ancestry(champions[-1]), "rollback")
            continue
        _, start, tens, labels, outcome, wanted = action
        champion = champions[-1] if champions else None
        accepted = rows(range(start * 10, start * 10 + tens * 10), labels)
        before = golden.read(model) or golden.nothing()
        accepted = accepted[~accepted["text"].isin(set(before.established["text"]))]
        if accepted.empty:
            continue
        mapping = combine(before.label_mapping, wanted)
        accepted = golden.rename(accepted, mapping)
        made = build(model, accepted, champion, mapping)
        if outcome == "repeated":
            assert build(model, accepted, champion, mapping) == made
        assert not set(snapshots.read(made["dataset_id"])["label"]) & mapping.keys()
        dataset = made["dataset_id"]
        parents.setdefault(dataset, champion if champion != dataset else None)
        learnt[dataset] = set(snapshots.read(dataset)["text"])
        judging = set(state(model).judging(made["golden_origin"])["text"])
        for version in {dataset, *champions}:
            assert not judging & learnt[version]
        if outcome != "rejected" and dataset != champion:
            champions.append(dataset)
            golden.follow(model, ancestry(dataset), "promoted", golden_max_rows=24, mapping=mapping)
            assert not set(state(model).rows["label"]) & mapping.keys()
        after = state(model)
        texts = [f"text {at}" for at in range(200)]
        for text, side in zip(texts, after.sides.of(texts), strict=True):
            if side >= 0:
                was = sides.setdefault(text, Side(side))
                assert side == was or (was, side) == (Side.GOLDEN, Side.TRAIN)
                sides[text] = Side(side)
        assert not set(after.rows["text"]) & set().union(*learnt.values())


def test_feedback_is_trained_on_and_never_judges_nor_validates(file_lake: str) -> None:
    first = build("fed", rows(range(200)))
    before = state("fed")
    feedback = rows(range(100, 400)).assign(source="incoming/feedback/fed-2026-11-26.parquet row 1")
    feedback["label"] = feedback["label"].map({"x": "y", "y": "x"})  # also of texts that are golden, or validate
    second = build("fed", feedback, first["dataset_id"])
    after = state("fed")
    assert set(after.rows["text"]) == set(before.rows["text"])
    assert dict(zip(after.rows["text"], after.rows["label"], strict=True)) == dict(
        zip(before.rows["text"], before.rows["label"], strict=True)
    )
    dataset = snapshots.read(second["dataset_id"])
    came = dataset[dataset["text"].isin([f"text {at}" for at in range(200, 400)])]
    assert len(came) == 200
    assert set(came["split"]) == {"train"}
    again = build("fed", rows(range(200, 400)), second["dataset_id"])
    assert set(state("fed").rows["text"]) == set(before.rows["text"]), "what was learnt does not judge later"
    assert again["rows"]
