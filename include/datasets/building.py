"""Builds a run's dataset: new rows and the champion's together, and the golden ones among them put aside."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import json
from dataclasses import replace
from typing import Any

import pandas as pd

from include import lake, objects
from include.datasets import golden, snapshots
from include.datasets.checks import normalise
from include.datasets.intake import Plan
from include.datasets.judging import most_corrections
from include.datasets.names import is_feedback
from include.datasets.sides import Side, assign, thresholds
from include.settings import settings


def build_dataset(plan: Plan, accepted: pd.DataFrame) -> dict[str, Any]:
    """Accepted rows and the champion's become a snapshot; those that are golden go to the golden set instead.

    Returns the snapshot's manifest with ``golden_origin``, by which the golden rows that came with it are known. Raises
    GoldenSetError if golden texts got into the snapshot.
    """
    config = settings()
    before, written, parent = _before(plan)
    known = before.sides if parent is None else before.sides.decided(list(parent["text"]), golden.sides_of(parent))
    by_label = thresholds(
        accepted,
        before.thresholds,
        golden_fraction=config.golden_fraction,
        golden_max_rows=config.golden_max_rows,
        validation_fraction=config.validation_fraction,
    )
    feedback = accepted["source"].astype(str).map(is_feedback).to_numpy(bool)
    side = assign(accepted, by_label, known, trained_only=feedback)
    corrections = before.corrections(accepted[~feedback])
    _check_approved(plan, before, len(corrections))
    if len(corrections):  # kept before they hold: whoever repeats this finds none
        objects.create_json(lake.staging(plan.run_id, "corrections.json"), {"rows": corrections.to_dict("records")})
    judging, learnt = accepted[(side == Side.GOLDEN) & ~feedback], accepted[side != Side.GOLDEN]
    learnt = learnt.assign(split=[lake.SPLITS[one] for one in side[side != Side.GOLDEN]])
    rows, relabelled = snapshots.combine(parent, pd.concat([learnt, _moved(before, parent, learnt)]))
    upon, is_parent = _upon(plan), _is_same(rows, relabelled, parent, written)
    ordered, dataset_id = (rows, str(plan.parent_dataset_id)) if is_parent else snapshots.order(rows, upon)
    origin = golden.after(dataset_id) if is_parent else dataset_id
    sides = known.decided(list(accepted["text"]), side)
    state = golden.change(
        plan.model_name,
        lambda last: replace(last.corrected(corrections).accept(judging, origin), sides=sides, thresholds=by_label),
        f"run {plan.run_id}",
        of=before.number,
    )
    golden.check_no_leak(ordered["text"], state, f"the dataset of run {plan.run_id}")
    if is_parent:
        manifest = objects.read_json(lake.dataset(dataset_id, "manifest.json"))
    else:
        manifest = snapshots.write(ordered, _facts(plan, len(learnt), relabelled, state), upon)
    golden.check_no_leak(snapshots.read(dataset_id)["text"], state, manifest["dataset_uri"])
    return {**manifest, "golden_origin": origin}


def _before(plan: Plan) -> tuple[golden.GoldenSet, pd.DataFrame | None, pd.DataFrame | None]:
    """The golden set, the champion's rows as they were written, and those with the labels that count in this run."""
    written = snapshots.read(plan.parent_dataset_id) if plan.parent_dataset_id else None
    before = golden.read(plan.model_name) or golden.nothing()
    if len(before.rows) and not before.number:
        before = golden.adopt(plan.model_name, [] if written is None else [written])
    parent = None if written is None else golden.rename(written, plan.label_mapping)
    return before.renamed(plan.label_mapping), written, parent


def _facts(plan: Plan, new: int, relabelled: int, state: golden.GoldenSet) -> dict[str, Any]:
    """What a dataset's manifest says beside its content."""
    return {
        "parent_dataset_id": plan.parent_dataset_id,
        "new_rows": new,
        "relabelled_rows": relabelled,
        "sources": sorted({source.key for source in plan.sources}),
        "golden_sha256": state.sha256,
        "label_mapping": plan.label_mapping,
    }


def _check_approved(plan: Plan, before: golden.GoldenSet, corrections: int) -> None:
    """Raises GoldenSetError if golden rows were established since the files were compared with them, and more of them
    get another label than may without a person's word."""
    if plan.approved or plan.golden_number in (None, before.number):
        return
    if corrections > (most := most_corrections(len(before.established))):
        raise golden.GoldenSetError(
            f"{corrections} of {len(before.established)} golden rows get another label, and no more than {most} may: "
            "some were established while this run worked. The next run sets the file that does it aside for approval"
        )


def _is_same(rows: pd.DataFrame, relabelled: int, parent: pd.DataFrame | None, written: pd.DataFrame | None) -> bool:
    """Whether a dataset is the one that it was built upon: the champion is trained again on its own rows."""
    if parent is None or written is None:
        return False
    return not relabelled and len(rows) == len(parent) and parent["label"].equals(written["label"])


def _upon(plan: Plan) -> str:
    """What makes two datasets of the same rows different: their ancestors, and what their labels were called."""
    mapping = json.dumps(plan.label_mapping, sort_keys=True) if plan.label_mapping else ""
    return f"{plan.parent_dataset_id or ''}{mapping}"


def _moved(state: golden.GoldenSet, parent: pd.DataFrame | None, learnt: pd.DataFrame) -> pd.DataFrame:
    """The rows that were golden once and are to be trained on, and are not yet."""
    texts = state.moved["text"].map(normalise)
    there = set(learnt["text"].map(normalise)) | set([] if parent is None else parent["text"].map(normalise))
    return state.moved[~texts.isin(there)].assign(split=lake.SPLITS[Side.TRAIN])
