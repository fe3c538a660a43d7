"""The stage ``preprocess`` of ``dvc.yaml``: accepted rows and the champion's become the folder ``dataset/``.

``python -m include.datasets.stage`` in a folder with ``accepted.parquet``, ``facts.json`` and ``plan.json``.
"""
# ruff: noqa: TID253 - a program of its own

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from include import lake, objects
from include.datasets import golden
from include.datasets.building import build_dataset
from include.datasets.intake import Plan
from include.settings import settings

DVC_YAML = Path(__file__).with_name("dvc.yaml")
ACCEPTED, FACTS, PLAN, DATASET, MANIFEST = "accepted.parquet", "facts.json", "plan.json", "dataset", "manifest.json"
RUNS_OWN = ("run_id", "dag_id", "sources", "newcomers")
"""What of a plan makes no difference to the dataset: the rows themselves are the file beside it."""


def facts_of(plan: Plan, accepted_hash: str, code: str) -> dict[str, Any]:
    """What decides, beside the rows, which dataset comes of a plan: the champion's, the golden set, settings, code."""
    config, state = settings(), golden.read(plan.model_name)
    names = ("golden_fraction", "golden_max_rows", "validation_fraction")
    return {
        "plan": plan.model_dump(mode="json", exclude=set(RUNS_OWN)),
        "accepted_hash": accepted_hash,
        "golden_sha256": state.sha256 if state else "",
        "settings": {name: getattr(config, name) for name in names},
        "code": code,
    }


def build(folder: Path) -> dict[str, Any]:
    """Builds the dataset in the lake and copies it to the folder ``dataset``; returns its manifest."""
    plan = Plan.model_validate_json((folder / PLAN).read_bytes())
    manifest = build_dataset(plan, pd.read_parquet(folder / ACCEPTED))
    target = folder / DATASET
    target.mkdir(exist_ok=True)
    for split in lake.SPLITS:
        objects.download_file(lake.dataset(manifest["dataset_id"], f"{split}.parquet"), target / f"{split}.parquet")
    (target / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False, default=str))
    return manifest


def publish(folder: Path) -> dict[str, Any]:
    """Puts a dataset that was made before back into the lake, if it is gone from there; returns its manifest."""
    found: dict[str, Any] = json.loads((folder / DATASET / MANIFEST).read_bytes())
    uri = lake.dataset(found["dataset_id"], MANIFEST)
    if not objects.exists(uri):
        for split in lake.SPLITS:
            name = f"{split}.parquet"
            objects.upload_file(folder / DATASET / name, lake.dataset(found["dataset_id"], name))
        objects.create_json(uri, {name: value for name, value in found.items() if name != "golden_origin"})
    return found


def main() -> int:
    """Runs the stage in the current folder; returns its exit code."""
    manifest = build(Path())
    print(f"dataset {manifest['dataset_id']}: {manifest['rows']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
