"""Batches of texts, padded to the longest of them: what every model takes."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Row = Mapping[str, Any]  # input_ids: whole numbers, in a list or an array; labels: int where known
Batch = dict[str, Any]  # tensors, but for max_length_q
Collator = Callable[[Sequence[Row]], Batch]


@dataclass(frozen=True)
class PaddedBatches:
    """Collates rows into a rectangle as wide as the longest of them."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """labels (texts), input_ids and attention_mask (texts, longest)."""
        # By numpy: each of torch's operations lets other threads have Python's lock, and would wait to have it back.
        lengths = np.array([len(row["input_ids"]) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.full(mask.shape, self.pad_token_id, dtype=np.int64)
        input_ids[mask] = np.concatenate([row["input_ids"] for row in rows])
        found = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        return labels_of(rows) | found


def labels_of(rows: Sequence[Row]) -> Batch:
    """They come first in a batch: Trainer takes the size of the first tensor for the number of texts."""
    return {"labels": torch.tensor([row["labels"] for row in rows])} if rows and "labels" in rows[0] else {}


def padded_batches(model: Any) -> PaddedBatches:
    """The collator for a model's padded batches."""
    return PaddedBatches(model.get_input_embeddings().padding_idx or 0)
