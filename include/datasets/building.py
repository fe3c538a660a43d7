"""Builds a run's dataset: new rows and the champion's together, and the golden ones among them put aside."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

from dataclasses import replace
from typing import Any

import pandas as pd

from include import lake
from include.datasets import golden, snapshots
from include.datasets.checks import normalise
from include.datasets.intake import Plan
from include.datasets.sides import Side, assign, thresholds
from include.settings import settings


def build_dataset(plan: Plan, accepted: pd.DataFrame) -> dict[str, Any]:
    """Accepted rows and the champion's become a snapshot; those that are golden go to the golden set instead.

    Returns the snapshot's manifest with ``golden_origin``, by which the golden rows that came with it are known. Raises
    GoldenSetError if golden texts got into the snapshot.
    """
    config = settings()
    parent = snapshots.read(plan.parent_dataset_id) if plan.parent_dataset_id else None
    before = golden.read(plan.model_name) or golden.nothing()
    if len(before.rows) and not before.number:
        before = golden.adopt(plan.model_name, [] if parent is None else [parent])
    before = before.renamed(plan.label_mapping)
    parent = None if parent is None else golden.rename(parent, plan.label_mapping)
    known = before.sides if parent is None else before.sides.decided(list(parent["text"]), golden.sides_of(parent))
    by_label = thresholds(
        accepted,
        before.thresholds,
        golden_fraction=config.golden_fraction,
        golden_max_rows=config.golden_max_rows,
        validation_fraction=config.validation_fraction,
    )
    side = assign(accepted, by_label, known)
    corrections = before.corrections(accepted)
    if len(corrections):  # kept before they hold: whoever repeats this finds none
        lake.create_json(lake.staging(plan.run_id, "corrections.json"), {"rows": corrections.to_dict("records")})
    judging, learnt = accepted[side == Side.GOLDEN], accepted[side != Side.GOLDEN]
    learnt = learnt.assign(split=[snapshots.SPLITS[one] for one in side[side != Side.GOLDEN]])
    rows, relabelled = snapshots.combine(parent, pd.concat([learnt, _moved(before, parent, learnt)]))
    ordered, dataset_id = snapshots.order(rows)
    origin = golden.after(dataset_id) if dataset_id == plan.parent_dataset_id else dataset_id
    sides = known.decided(list(accepted["text"]), side)
    state = golden.change(
        plan.model_name,
        lambda last: replace(last.corrected(corrections).accept(judging, origin), sides=sides, thresholds=by_label),
        f"run {plan.run_id}",
        of=before.number,
    )
    golden.check_no_leak(ordered["text"], state, f"the dataset of run {plan.run_id}")
    facts = {
        "parent_dataset_id": plan.parent_dataset_id,
        "new_rows": len(learnt),
        "relabelled_rows": relabelled,
        "sources": sorted({source.key for source in plan.sources}),
        "golden_sha256": state.sha256,
        "label_mapping": plan.label_mapping,
    }
    manifest = snapshots.write(ordered, facts)
    golden.check_no_leak(snapshots.read(dataset_id)["text"], state, manifest["dataset_uri"])
    return {**manifest, "golden_origin": origin}


def _moved(state: golden.GoldenSet, parent: pd.DataFrame | None, learnt: pd.DataFrame) -> pd.DataFrame:
    """The rows that were golden once and are to be trained on, and are not yet."""
    texts = state.moved["text"].map(normalise)
    there = set(learnt["text"].map(normalise)) | set([] if parent is None else parent["text"].map(normalise))
    return state.moved[~texts.isin(there)].assign(split=snapshots.SPLITS[Side.TRAIN])
