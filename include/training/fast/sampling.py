"""The order of training: texts of like lengths share a batch, so that little of it is padding."""
# ruff: noqa: TID253 - imported with the trainer, inside functions

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

WINDOW = 50  # batches that are sorted together: on short texts 6 % of them is padding then, and their order is random


class SortedInWindows(Sampler[int]):
    """Row numbers, shuffled, sorted by length within windows, and whole batches shuffled again.

    transformers' own ``group_by_length`` would have each window's longest texts first, and an order after a resume that
    is not the one before it. Here epoch and seed decide the order.

    Args:
        lengths: Of each row, in tokens.
        batch_size: Texts of a batch.
        seed: Of the job.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """transformers calls it before each epoch, the first one after a resume included."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self._seed, self._epoch))
        rows = random.permutation(len(self))
        size, batches = self._batch_size, list[NDArray[np.int64]]()
        for start in range(0, len(rows), size * WINDOW):
            window = rows[start : start + size * WINDOW]
            window = window[np.argsort(self._lengths[window], kind="stable")]
            batches += [window[at : at + size] for at in range(0, len(window), size)]
        whole = [batch for batch in batches if len(batch) == size]
        random.shuffle(whole)
        for batch in [*whole, *(batch for batch in batches if len(batch) < size)]:  # at most one, and the last
            yield from map(int, batch)
