"""Scoring texts with a trained classifier: quick, and with float32's labels."""
# ruff: noqa: TID253 - numbers and tensors are all this module is about; import it inside functions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from include.training.batches import padded_batches
from include.training.fast import Prepared, prepare_to_score
from include.training.fast.hardware import device_type, keep_freed_memory, limit_threads
from include.training.fast.openvino import Compiled
from include.training.model import load_classifier, quieten_transformers
from include.training.token_store import tokenize

MOST_TOKENS = 2048  # per batch
# What bfloat16 takes the difference of two logits off by, as a share of the best one: 2.4 % at most on a small random
# model, which is the noisiest there is. Float32, summed up in another order, is a thousand times as close.
ROUNDING = 0.025
COMPILE_FROM = 5_000  # texts: compiling takes as long as some hundreds do
Row = NDArray[np.int32]
PIECE = 4096  # texts that are tokenised at a time: what the tokenizer returns is large


@dataclass(frozen=True)
class Scores:
    """A classifier's answers."""

    labels: list[str]  # the order of the columns
    probabilities: NDArray[np.float32]  # (texts, labels) float32, rows in the texts' order

    @property
    def predicted(self) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[index] for index in self.probabilities.argmax(-1)] if len(self.probabilities) else []


class Scorer:
    """A trained classifier that is loaded once and answers many times, on the GPU or, without one, on the CPU.

    Where the machine is quick at it, in bfloat16. Texts whose two best labels are then too close to tell apart are
    scored again in float32, so that labels hang on rounding no more than there. Not to be used by two threads at once.

    Args:
        model_uri: Folder (URI or local) of a model of ours or of any transformers sequence classifier.
        compiled: Whether it is going to answer for so long that seconds of compiling are worth it. If not, it is
            compiled once it is given very many texts.
        precisions: Those of a scorer that was compiled before: they are the quickest here, and are not tried again.

    Raises:
        FileNotFoundError: nothing lies at `model_uri`.
        TrainingError: what lies there is no trained sequence classifier.
    """

    def __init__(self, model_uri: str, *, compiled: bool = False, precisions: Sequence[str] = ()) -> None:
        quieten_transformers()
        keep_freed_memory()
        limit_threads()
        self._device = device_type()
        self._classifier = load_classifier(model_uri)
        model = self._classifier.model
        self._exact = Prepared(model, padded_batches(model))
        self._compiled = compiled
        self._quick = prepare_to_score(model, self._device, compiled=compiled, precisions=precisions)

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of the probabilities' columns."""
        return self._classifier.labels

    @property
    def max_length(self) -> int:
        """Tokens of the longest text; longer ones are cut."""
        return self._classifier.max_length

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which what answers was compiled for this machine, the quickest first; none where torch answers."""
        return tuple(one.model.precision for one in self._quick if isinstance(one.model, Compiled))

    def tokenize(self, texts: Sequence[str], max_length: int = 0) -> list[Row]:
        """Token ids of each text, cut at the model's maximum, as in training, or at another."""
        pieces = (texts[start : start + PIECE] for start in range(0, len(texts), PIECE))
        return [
            np.array(ids, dtype=np.int32)
            for piece in pieces
            for ids in tokenize(piece, self._classifier.tokenizer, max_length or self.max_length)
        ]

    @torch.inference_mode()
    def probabilities(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """(texts, labels) float32 for token ids, in their order."""
        if len(rows) >= COMPILE_FROM and not self._compiled and self._device == "cpu":
            self._compiled = True
            self._quick = prepare_to_score(self._exact.model, self._device, compiled=True)
        answering = [*self._quick, self._exact]
        logits = self._logits(answering[0], rows)
        for quick, slower in pairwise(answering):
            close = self._close(logits, quick)
            logits[close] = self._logits(slower, [rows[row] for row in close.tolist()])
        return np.asarray(logits.softmax(-1).numpy(), dtype=np.float32)

    def _close(self, logits: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """Which texts' two best labels are so close that rounding may have decided."""
        if len(self.labels) == 1:
            return torch.empty(0, dtype=torch.long)
        best, second = logits.topk(2).values.unbind(-1)
        rounding = ROUNDING if prepared.bfloat16 else ROUNDING / 1000
        return (best - second < rounding * best.abs().clamp(min=2)).nonzero().flatten()

    def _logits(self, prepared: Prepared, rows: Sequence[Row]) -> torch.Tensor:
        # On the CPU it lies already: asking each of its modules would take a tenth of a single text's time.
        model = prepared.model if self._device == "cpu" else prepared.model.to(self._device)
        logits = torch.zeros(len(rows), len(self.labels))
        for batch in _batches(rows):
            inputs = prepared.collator([{"input_ids": rows[row]} for row in batch])
            moved = {
                name: value.to(self._device) if torch.is_tensor(value) else value for name, value in inputs.items()
            }
            logits[batch] = model(**moved).logits.float().cpu()
        return logits


def score(model_uri: str, texts: Sequence[str]) -> Scores:
    """Scores any number of texts with the model at a URI; raises what `Scorer` does."""
    scorer = Scorer(model_uri)
    return Scores(scorer.labels, scorer.probabilities(scorer.tokenize(texts)))


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Row numbers in batches of like lengths: little padding for models that need it, and a bounded size for all."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if batch and (len(batch) + 1) * len(rows[index]) > MOST_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
