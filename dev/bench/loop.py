"""A bare training loop on the trainer's own model, batches and order: what pieces and profile look at."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dev.bench import data
from include.training.batches import padded_batches
from include.training.fast import prepare
from include.training.fast.dropout import ByteDropout
from include.training.fast.sampling import SortedInWindows
from include.training.fast.vocabulary import Vocabulary
from include.training.model import build_classifier, quieten_transformers
from include.training.token_store import tokenize
from include.training.train import WEIGHT_DECAY, mean_cross_entropy

SEED = 42
LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Pieces:
    """Which pieces of include/training/fast a loop has."""

    sampling: bool = True
    vocabulary: bool = True
    bfloat16: bool = True  # where the machine is quick at it
    first_token: bool = True
    dropout: bool = True  # by random bytes
    eager: bool = True  # attention, not SDPA
    tokens_per_batch: int = 0  # in place of so many texts; 0: as the trainer does it


@dataclass(frozen=True)
class Rows:
    """Tokenised texts.

    Args:
        ids: Token ids of each text.
        labels: Index of its label.
        names: The labels.
    """

    ids: list[NDArray[np.int64]]
    labels: list[int]
    names: list[str]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.array([len(one) for one in self.ids])


def read(model: Path, file: Path | None, texts: int, max_length: int) -> Rows:
    """The first texts of a labelled file, or made-up ones."""
    quieten_transformers()
    frame = data.load(file, None).train[:texts]
    names = sorted(set(frame["label"]))
    _, tokenizer = build_classifier(str(model), names, str(model))
    ids = [np.asarray(one, dtype=np.int64) for one in tokenize(list(frame["text"]), tokenizer, max_length)]
    return Rows(ids, [names.index(label) for label in frame["label"]], names)


class Loop:
    """A model in training.

    Args:
        base: Folder of the base model.
        rows: What it learns.
        batch_size: Texts of a step.
        pieces: Of the speed code.
        device: cpu or cuda.
    """

    def __init__(self, base: Path, rows: Rows, batch_size: int, pieces: Pieces, device: str = "cpu") -> None:
        torch.manual_seed(SEED)
        self._rows, self._batch_size, self._pieces, self._device = rows, batch_size, pieces, device
        model, _ = build_classifier(str(base), rows.names, str(base))
        prepared = prepare(model, device, int(rows.lengths.sum()))
        if not pieces.first_token:
            for module in model.modules():
                module._forward_pre_hooks.clear()
        if not pieces.dropout and device == "cpu":
            _drop_as_torch_does(model)
            model.set_attn_implementation("eager" if pieces.eager else "sdpa")
        self.bfloat16 = prepared.bfloat16 and pieces.bfloat16
        self._ids = rows.ids
        if pieces.vocabulary:
            used = np.zeros(model.get_input_embeddings().num_embeddings, dtype=np.bool_)
            used[np.concatenate(rows.ids)] = True
            new_ids = Vocabulary(model, used).renumbered
            self._ids = [new_ids[ids] for ids in rows.ids]
        self._collate = prepared.collator if device == "cuda" else padded_batches(model)
        self.model = model.to(device).train()
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._epoch = 0

    def batches(self) -> Iterator[list[int]]:
        """Row numbers of each step, epoch after epoch."""
        while True:
            yield from self.of_an_epoch()
            self._epoch += 1

    def of_an_epoch(self) -> Iterable[list[int]]:
        """Row numbers of the steps of one epoch."""
        lengths, size = self._rows.lengths, self._batch_size
        if self._pieces.sampling:
            sampler = SortedInWindows(lengths, size, SEED)
            sampler.set_epoch(self._epoch)
            order = list(sampler)
        else:
            order = list(map(int, np.random.default_rng((SEED, self._epoch)).permutation(len(lengths))))
        if not self._pieces.tokens_per_batch:
            return (order[at : at + size] for at in range(0, len(order) - size + 1, size))
        return by_tokens(order, lengths, self._pieces.tokens_per_batch)

    def step(self, rows: list[int]) -> int:
        """One optimizer step on some rows; how many texts."""
        batch = self._collate([{"input_ids": self._ids[row], "labels": self._rows.labels[row]} for row in rows])
        batch = {name: value.to(self._device) if torch.is_tensor(value) else value for name, value in batch.items()}
        labels = batch.pop("labels")
        with torch.autocast(self._device, torch.bfloat16, enabled=self.bfloat16):
            outputs = self.model(**batch)
        loss = mean_cross_entropy(outputs, labels, len(rows))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        return len(rows)


def _drop_as_torch_does(model: Any) -> None:
    dropping: list[torch.nn.Module] = [module for module in model.modules() if isinstance(module, ByteDropout)]
    for module in dropping:
        module.__class__ = torch.nn.Dropout


def by_tokens(order: list[int], lengths: NDArray[np.int64], tokens: int) -> Iterator[list[int]]:
    """Batches, in this order, each padded to at most so many tokens; a longer text is one by itself."""
    batch: list[int] = []
    longest = 0
    for row in order:
        width = max(longest, int(lengths[row]))
        if batch and width * (len(batch) + 1) > tokens:
            yield batch
            batch, width = [], int(lengths[row])
        batch, longest = [*batch, row], width
    if batch:
        yield batch
