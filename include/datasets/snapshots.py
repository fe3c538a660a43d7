"""Content-addressed snapshots: the same rows on the same sides, built upon the same snapshot, always give the same
dataset id and the same files."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import hashlib
import io
from typing import Any

import pandas as pd

from include import lake, objects
from include.datasets.checks import normalise

ROWS = ["text", "label", "source", "extra"]
"""A snapshot's columns. ``source`` says which file and row a text came from, ``extra`` has the file's other columns as
a JSON object; both are empty in rows from before they were kept."""


def combine(parent: pd.DataFrame | None, new: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Old and new rows together; a text that comes again with another label takes the new one.

    Both have the columns ``ROWS`` and split, of which source and extra may be missing. Returns the rows and how many
    old ones were relabelled.
    """
    columns = [*ROWS, "split"]
    new = new.reindex(columns=columns, fill_value="")
    if parent is None:
        return new.reset_index(drop=True), 0
    parent = parent.reindex(columns=columns, fill_value="")
    labels = new.set_index(new["text"].map(normalise))["label"]
    label_now = parent["text"].map(normalise).map(labels)
    kept = parent[label_now.isna()]
    relabelled = label_now.notna() & (label_now != parent["label"])
    return pd.concat([kept, new], ignore_index=True), int(relabelled.sum())


def order(rows: pd.DataFrame, upon: str = "") -> tuple[pd.DataFrame, str]:
    """Rows (``ROWS`` and split, of which source and extra may be missing) as a snapshot has them, and its id.

    ``upon`` is what they were built upon: which uploads a snapshot has is known by that, so it is part of the id.
    """
    ordered = rows.reindex(columns=[*ROWS, "split"], fill_value="").fillna({"source": "", "extra": ""})
    ordered = ordered.sort_values(["split", "text", "label"], ignore_index=True)
    return ordered, _content_hash(ordered, upon)


def write(rows: pd.DataFrame, facts: dict[str, Any], upon: str = "") -> dict[str, Any]:
    """Writes rows (as for ``order``) as a snapshot, manifest last; returns the manifest.

    ``facts`` (where the rows came from) go into the manifest but not into the id.
    """
    ordered, dataset_id = order(rows, upon)
    manifest_uri = lake.dataset(dataset_id, "manifest.json")
    if not objects.exists(manifest_uri):
        for split in lake.SPLITS:
            _write_parquet(ordered.loc[ordered["split"] == split, ROWS], dataset_id, split)
        manifest = {
            "dataset_id": dataset_id,
            "dataset_uri": lake.dataset(dataset_id),
            "rows": {split: int((ordered["split"] == split).sum()) for split in lake.SPLITS},
            "label_counts": ordered["label"].value_counts().sort_index().to_dict(),
            **facts,
        }
        objects.create_json(manifest_uri, manifest)
    return objects.read_json(manifest_uri)


def read(dataset_id: str) -> pd.DataFrame:
    """All rows of a snapshot: columns ``ROWS`` and split."""
    frames = [
        pd.read_parquet(io.BytesIO(objects.read_bytes(lake.dataset(dataset_id, f"{split}.parquet")))).assign(
            split=split
        )
        for split in lake.SPLITS
    ]
    return pd.concat(frames, ignore_index=True).reindex(columns=[*ROWS, "split"], fill_value="")


def _content_hash(ordered: pd.DataFrame, upon: str = "") -> str:
    """16 hex digits over every split, text and label, and extra where there is any.

    Where a text came from does not change what it is. The lengths keep neighbouring cells apart.
    """
    digest = hashlib.sha256(upon.encode())
    columns = ["split", "text", "label"]
    if "extra" in ordered and (ordered["extra"] != "").any():
        columns.append("extra")
    for row in ordered[columns].itertuples(index=False):
        for cell in row:
            encoded = cell.encode()
            digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()[:16]


def _write_parquet(rows: pd.DataFrame, dataset_id: str, split: str) -> None:
    buffer = io.BytesIO()
    rows.reset_index(drop=True).to_parquet(buffer, index=False)
    objects.write_bytes(lake.dataset(dataset_id, f"{split}.parquet"), buffer.getvalue())
