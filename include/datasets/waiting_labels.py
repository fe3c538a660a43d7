"""How many rows of each label are in files of rows that wait: ``python -m include.datasets.waiting_labels FILE …``.

For whoever has no business with Arrow, as Airflow's webserver: this is a process of its own. It imports little, since
somebody waits for it, and writes JSON.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc


def counts(paths: Iterable[str]) -> dict[str, int]:
    """The rows by their label, those of most rows first."""
    found: Counter[str] = Counter()
    for path in paths:
        with pa.memory_map(path) as content:
            labels = pa.ipc.open_file(content).read_all()["label"]
            found.update({one["values"]: one["counts"] for one in pc.value_counts(labels).to_pylist()})
    return dict(found.most_common())


if __name__ == "__main__":
    print(json.dumps(counts(sys.argv[1:]), ensure_ascii=False))
