"""Which rows are learnt from, which choose the best epoch and which judge: decided once for each text.

Each text has a place between 0 and 1, by a hash of its normalised form, and each label a threshold: below it a text is
golden. So it does not matter in which order files arrive, and no split is ever drawn anew. What was decided is kept by
text; only a golden row may become a training row, when a threshold shrinks.
"""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from include.datasets.checks import normalise, text_keys

Numbers = np.ndarray[Any, np.dtype[Any]]

NORMALISATIONS: dict[int, Callable[[Any], Numbers]] = {1: text_keys}
"""What gives a text its key, by version: what an earlier one decided is found by that one for ever."""

FEWEST_GOLDEN = 10  # rows of a label, if that is not more than a third of them
LEAST_TRAINED = 2


class Side(IntEnum):
    """What a row is for."""

    TRAIN = 0
    VALIDATION = 1
    GOLDEN = 2


class Threshold(BaseModel):
    """Of one label: texts with a place below ``golden`` judge, and of the others those below ``validation`` validate.

    A text has a place for each.
    """

    model_config = ConfigDict(frozen=True)

    golden: float
    validation: float


@dataclass(frozen=True)
class Sides:
    """The sides of all texts that were ever accepted; ``table`` has the columns version, key and side, sorted."""

    table: pd.DataFrame

    @classmethod
    def none(cls) -> "Sides":
        """The sides of no text: where nothing is decided yet."""
        types = {"version": np.int16, "key": np.uint64, "side": np.int8}
        return cls(pd.DataFrame({name: np.array([], dtype) for name, dtype in types.items()}))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Sides":
        """Reads what ``to_bytes`` has written."""
        return cls(pd.read_parquet(io.BytesIO(content)))

    def to_bytes(self) -> bytes:
        """The bytes of a Parquet file of them."""
        buffer = io.BytesIO()
        self.table.to_parquet(buffer, index=False)
        return buffer.getvalue()

    def of(self, texts: Any) -> Numbers:
        """The sides (n,) of n texts; -1 where none is decided."""
        found = np.full(len(texts), -1, np.int8)
        for version, part in self.table.groupby("version"):
            keys, sides = part["key"].to_numpy(), part["side"].to_numpy()
            wanted = NORMALISATIONS[int(str(version))](texts)
            places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = (keys[places] == wanted) & (found < 0)
            found[known] = sides[places[known]]
        return found

    def decided(self, texts: Any, sides: Any) -> "Sides":
        """These sides and those of n texts more; what is decided already stays."""
        unknown = self.of(texts) < 0
        version = max(NORMALISATIONS)
        keys = NORMALISATIONS[version](texts)[unknown]
        new = pd.DataFrame({"version": version, "key": keys, "side": np.asarray(sides, np.int8)[unknown]})
        return self._with(new.astype({"version": np.int16}).drop_duplicates("key"))

    def trained(self, texts: Any) -> "Sides":
        """These sides with n golden texts turned into training rows: the one step there is."""
        table = self.table.copy()
        for version, keys_of in NORMALISATIONS.items():
            table.loc[(table["version"] == version) & table["key"].isin(keys_of(texts)), "side"] = int(Side.TRAIN)
        return Sides(table)

    def _with(self, new: pd.DataFrame) -> "Sides":
        return Sides(pd.concat([self.table, new]).sort_values(["version", "key"], ignore_index=True))


def places(texts: Any) -> Numbers:
    """Two numbers from 0 to 1 for each text's normalised form, for the golden and for the validation threshold.

    (n,) strings in, (n, 2) floats out.
    """
    digests = b"".join(hashlib.sha256(f"golden{normalise(text)}".encode()).digest()[:16] for text in texts)
    return np.frombuffer(digests, ">u8").reshape(-1, 2) / 2.0**64


def thresholds(
    rows: pd.DataFrame,
    known: Mapping[str, Threshold],
    *,
    golden_fraction: float,
    golden_max_rows: int,
    validation_fraction: float,
) -> dict[str, Threshold]:
    """The known thresholds, and one for each label of the rows (text, label) that has none.

    A label begins with ``golden_fraction`` of its rows as golden ones, or less if all labels' would be more than
    ``golden_max_rows``; but with 10 or a third of its rows at least. At least two rows are left to be trained on.
    """
    found = dict(known)
    fraction = min(golden_fraction, golden_max_rows / max(len(rows), 1))
    for label, mine in rows.groupby("label")["text"]:
        if label in known:
            continue
        size = len(mine)
        wanted = min(max(round(fraction * size), min(FEWEST_GOLDEN, size // 3), 1), max(size - LEAST_TRAINED, 0))
        at = places(mine)
        golden = _below(at[:, 0], wanted)
        others = at[at[:, 0] >= golden, 1]
        wanted = min(max(round(validation_fraction * len(others)), 1), max(len(others) - LEAST_TRAINED, 0))
        found[str(label)] = Threshold(golden=golden, validation=_below(others, wanted))
    return found


def assign(
    rows: pd.DataFrame, by_label: Mapping[str, Threshold], known: Sides, *, trained_only: Numbers | None = None
) -> Numbers:
    """The side (n,) of each of n rows (text, label): the one that was decided for its text, or else by its label's
    threshold. Rows that are ``trained_only`` (n,) neither judge nor validate, unless that was decided before."""
    found = known.of(list(rows["text"]))
    new = np.flatnonzero(found < 0)
    texts, labels = rows["text"].to_numpy()[new], rows["label"].to_numpy()[new]
    at, below = places(texts), np.array([(by_label[one].golden, by_label[one].validation) for one in labels])
    golden, validation = (at < below.reshape(-1, 2)).T
    if trained_only is not None:
        golden, validation = golden & ~trained_only[new], validation & ~trained_only[new]
    found[new] = np.where(golden, Side.GOLDEN, np.where(validation, Side.VALIDATION, Side.TRAIN))
    return found


def _below(at: Numbers, wanted: int) -> float:
    """The threshold below which ``wanted`` of the places are."""
    if wanted <= 0:
        return 0.0
    ordered = np.sort(at)
    return float(ordered[wanted - 1 : wanted + 1].mean()) if wanted < len(ordered) else 1.0
