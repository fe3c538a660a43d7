"""What a dataset's manifest says of where it came from: read without its rows, and long after those were deleted."""

from include import lake, objects


def parent_of(dataset_id: str) -> str | None:
    """The dataset that one was made from; None if it is the first, or nothing is known of it any more."""
    manifest = lake.dataset(dataset_id, "manifest.json")
    return objects.read_json(manifest).get("parent_dataset_id") if objects.exists(manifest) else None


def label_mapping_of(dataset_id: str) -> dict[str, str]:
    """The old names of labels, and what they are called in a dataset; empty if nothing is known of it any more."""
    manifest = lake.dataset(dataset_id, "manifest.json")
    mapping: dict[str, str] = objects.read_json(manifest).get("label_mapping", {}) if objects.exists(manifest) else {}
    return mapping


def ancestry(dataset_id: str | None) -> list[str]:
    """A dataset and those it was made from, the newest first."""
    found: list[str] = []
    while dataset_id and dataset_id not in found:
        found.append(dataset_id)
        dataset_id = parent_of(dataset_id)
    return found
