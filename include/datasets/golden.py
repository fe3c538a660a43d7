"""The golden set: a model's test rows, frozen once, hash-locked, and kept out of training by normalised text."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import hashlib
import io
from dataclasses import dataclass

import pandas as pd

from include import lake
from include.datasets.checks import normalise


class GoldenSetError(RuntimeError):
    """The golden set is not what was frozen, or its rows have leaked into training data."""


@dataclass(frozen=True)
class GoldenSet:
    """Frozen test rows: ``rows`` has the columns text and label; ``sha256`` is the hash of the file they come from."""

    rows: pd.DataFrame
    sha256: str

    @property
    def normalised(self) -> set[str]:
        """The texts in the form in which they are kept out of training."""
        return set(self.rows["text"].map(normalise))

    @property
    def labels(self) -> list[str]:
        """The labels, sorted."""
        return sorted(self.rows["label"].unique())


def read(model_name: str) -> GoldenSet | None:
    """A model's golden set; None if none was frozen yet. Raises GoldenSetError if it is not what was frozen."""
    lock_uri = lake.golden(model_name, "golden.json")
    if not lake.exists(lock_uri):
        return None
    lock = lake.read_json(lock_uri)
    content = lake.read_bytes(lock["uri"])
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != lock["sha256"]:
        raise GoldenSetError(
            f"{lock['uri']} was changed after it was frozen (hash {sha256[:12]}, frozen {lock['sha256'][:12]}); "
            "restore the frozen file: scores on other rows cannot be compared"
        )
    return GoldenSet(pd.read_parquet(io.BytesIO(content)), sha256)


def freeze(model_name: str, rows: pd.DataFrame) -> GoldenSet:
    """Freezes rows (text, label) as a model's golden set, unless there is one already; returns the one that counts."""
    buffer = io.BytesIO()
    rows[["text", "label"]].to_parquet(buffer, index=False)
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    # The rows lie under their hash and the lock is created once: two runs at once cannot mix their files.
    uri = lake.write_bytes(lake.golden(model_name, f"{sha256[:16]}.parquet"), buffer.getvalue())
    lock = {"uri": uri, "sha256": sha256, "rows": len(rows), "labels": sorted(rows["label"].unique())}
    lake.create_json(lake.golden(model_name, "golden.json"), lock)
    frozen = read(model_name)
    assert frozen is not None
    return frozen


def check_no_leak(texts: pd.Series, golden: GoldenSet, where: str) -> None:
    """Raises GoldenSetError if any of the texts is in the golden set. ``where`` names the texts in the message."""
    leaked = texts[texts.map(normalise).isin(golden.normalised)]
    if len(leaked):
        raise GoldenSetError(
            f"{len(leaked)} golden texts are in {where}, for example {leaked.iloc[0][:80]!r}; "
            "a model trained on them would be judged by what it has seen"
        )
