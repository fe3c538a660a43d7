"""How many rows of each new label wait: ``python -m include.datasets.waiting_labels MODEL`` writes it as JSON.

For whoever has no business with Arrow, as Airflow's webserver: this is a process of its own.
"""

import json
import sys
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from include import lake
from include.datasets.newcomers import ASIDE


def counts(model_name: str) -> dict[str, int]:
    """The rows that wait by their label, those of most rows first."""
    found: Counter[str] = Counter()
    for uri in lake.find(lake.waiting(model_name)):
        if uri.startswith(lake.waiting(model_name, ASIDE)):
            continue
        labels = pa.ipc.open_file(lake.read_bytes(uri)).read_all()["label"]
        found.update({one["values"]: one["counts"] for one in pc.value_counts(labels).to_pylist()})
    return dict(found.most_common())


if __name__ == "__main__":
    print(json.dumps(counts(sys.argv[1]), ensure_ascii=False))
