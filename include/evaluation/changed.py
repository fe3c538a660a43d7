"""Which golden rows two versions answer differently: ``python -m include.evaluation.changed OLD.parquet NEW.parquet``.

For whoever has no business with Parquet, as Airflow's webserver: this is a process of its own, and writes JSON. Each
version's answers are those of the run that made it.
"""

import argparse
import io
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from include import lake
from include.evaluation.answers import MODELS, compare_answers, read_answers

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 200
KINDS = ("broken", "fixed", "other")
"""Only the old version was right, only the new one is, or neither: they are wrong in two ways."""


def changes(new: "pd.DataFrame", old: "pd.DataFrame", label_mapping: Mapping[str, str] | None = None) -> dict[str, Any]:
    """How two versions compare, and the rows that they answer differently, of each kind those the new one is surest of.

    Rows are those that both answered under the same label. Raises ValueError if there are none.
    """
    if label_mapping:
        names = {column: dict(label_mapping) for column in ("label", "predicted")}
        new, old = new.replace(names), old.replace(names)
    found = compare_answers(new, old)
    both = new.merge(old, on=["key", "label"], suffixes=("", "_old"), validate="one_to_one")
    both = both[both["predicted"] != both["predicted_old"]].sort_values("confidence", ascending=False, kind="stable")
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for row in both.to_dict("records"):
        kind = (
            "fixed"
            if row["predicted"] == row["label"]
            else "broken"
            if row["predicted_old"] == row["label"]
            else "other"
        )
        text = row.get("text") or row.get("text_old") or ""
        shown = {name: row[name] for name in ("label", "predicted", "confidence", "predicted_old", "confidence_old")}
        kinds[kind].append({"kind": kind, "text": text, **shown})
    return {
        **found.model_dump(include={"rows", "fixed", "broken", "difference", "lower", "upper", "confidence"}),
        "counts": {kind: len(rows) for kind, rows in kinds.items()},
        "changed": [row for rows in kinds.values() for row in rows[:MOST_ROWS]],
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.evaluation.changed", description=__doc__)
    parser.add_argument("old", help="the answers.parquet of the older version's run")
    parser.add_argument("new", help="that of the newer one's")
    parser.add_argument("--mapping", type=json.loads, default={}, help="old names of labels and new ones, as JSON")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    new, old = (read_answers(io.BytesIO(lake.read_bytes(uri)), MODELS[0]) for uri in (options.new, options.old))
    try:
        print(json.dumps(changes(new, old, options.mapping), ensure_ascii=False))
    except ValueError as error:
        print(json.dumps({"error": str(error)}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
