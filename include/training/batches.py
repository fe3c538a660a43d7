"""Batches of texts, padded to the longest of them: what every model takes."""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

Row = Mapping[str, Any]  # input_ids: whole numbers, in a list or an array; labels: int where known
Batch = dict[str, Any]  # tensors, but for max_length_q
Collator = Callable[[Sequence[Row]], Batch]


@dataclass(frozen=True)
class PaddedBatches:
    """Collates rows into a rectangle as wide as the longest of them."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """labels (texts), input_ids and attention_mask (texts, longest)."""
        texts = [torch.tensor(row["input_ids"], dtype=torch.int64) for row in rows]
        input_ids = pad_sequence(texts, batch_first=True, padding_value=self.pad_token_id)
        lengths = torch.tensor([len(text) for text in texts])
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        return labels_of(rows) | {"input_ids": input_ids, "attention_mask": mask}


def labels_of(rows: Sequence[Row]) -> Batch:
    """They come first in a batch: Trainer takes the size of the first tensor for the number of texts."""
    return {"labels": torch.tensor([row["labels"] for row in rows])} if rows and "labels" in rows[0] else {}


def padded_batches(model: Any) -> PaddedBatches:
    """The collator for a model's padded batches."""
    return PaddedBatches(model.get_input_embeddings().padding_idx or 0)
