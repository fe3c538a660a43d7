"""Which golden rows two versions answer differently: ``python -m include.evaluation.changed OLD.parquet NEW.parquet``.

For whoever has no business with Parquet, as Airflow's webserver: this is a process of its own. It imports little, since
somebody waits for it, and writes JSON. Each version's answers are those of the run that made it.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from include.evaluation.answers import MODELS
from include.evaluation.comparison import Pair, compare

MOST_ROWS = 200
CONFIDENCE, MARGIN = 0.99, 0.02
KINDS = ("broken", "fixed", "other")
"""Only the old version was right, only the new one is, or neither: they are wrong in two ways."""

Rows = Sequence[Mapping[str, Any]]


def read(path: str | Path) -> Rows:
    """What the version of a run answered, by the run's answers.parquet."""
    return [row for row in pq.ParquetFile(path).read().to_pylist() if row["model"] == MODELS[0]]


def changes(new: Rows, old: Rows, label_mapping: Mapping[str, str] | None = None) -> dict[str, Any]:
    """How two versions compare, and the rows that they answer differently, of each kind those the new one is surest of.

    Rows are those that both answered under the same label. Raises ValueError if there are none.
    """
    names = label_mapping or {}
    before = {row["key"]: row for row in _renamed(old, names)}
    pairs = [(row, before.get(row["key"], {})) for row in _renamed(new, names)]
    both = [(row, other) for row, other in pairs if row["label"] == other.get("label")]
    labels = [row["label"] for row, _ in both]
    answers = ([row["predicted"] for row, _ in both], [other["predicted"] for _, other in both])
    found = compare(Pair.of(labels, *answers), "other version", CONFIDENCE, MARGIN)
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for row, other in sorted(both, key=lambda one: -one[0]["confidence"]):
        if row["predicted"] != other["predicted"]:
            kind = _kind(row["label"], row["predicted"], other["predicted"])
            kinds[kind].append(
                {
                    "kind": kind,
                    "text": row.get("text") or other.get("text") or "",
                    **{name: row[name] for name in ("label", "predicted", "confidence")},
                    "predicted_old": other["predicted"],
                    "confidence_old": other["confidence"],
                }
            )
    return {
        **found.model_dump(include={"rows", "fixed", "broken", "difference", "lower", "upper", "confidence"}),
        "counts": {kind: len(rows) for kind, rows in kinds.items()},
        "changed": [row for rows in kinds.values() for row in rows[:MOST_ROWS]],
    }


def _renamed(rows: Rows, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows, each once, with their labels as they are called now."""
    once = {row["key"]: row for row in reversed(rows)}
    return [
        {**row, **{column: names.get(row[column], row[column]) for column in ("label", "predicted")}}
        for row in reversed(once.values())
    ]


def _kind(label: str, predicted: str, predicted_old: str) -> str:
    if predicted == label:
        return "fixed"
    return "broken" if predicted_old == label else "other"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.evaluation.changed", description=__doc__)
    parser.add_argument("old", help="the answers.parquet of the older version's run, on this machine")
    parser.add_argument("new", help="that of the newer one's")
    parser.add_argument("--mapping", type=json.loads, default={}, help="old names of labels and new ones, as JSON")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        print(json.dumps(changes(read(options.new), read(options.old), options.mapping), ensure_ascii=False))
    except ValueError as error:
        print(json.dumps({"error": str(error)}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
