"""One version of a model in memory, and what it answers."""
# ruff: noqa: TID253 - numbers are what this module is about

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from include.training.scoring import Row

WARM_UP = ("a", "two words " * 20)
"""Texts that are answered before the first caller's, who would wait for all that is done once."""

SHORT = 1_000  # characters, which are token ids after some tenths of a millisecond


class EngineError(RuntimeError):
    """A version that cannot be loaded or does not answer; the message says which and why."""


@dataclass(frozen=True)
class Tokens:
    """A request's texts as token ids."""

    rows: "list[Row]"
    cut: list[bool]  # which of them were longer than the model reads

    def __len__(self) -> int:
        """All tokens, which is what answering takes."""
        return sum(len(row) for row in self.rows)


class Engine:
    """A loaded version.

    Args:
        model: the registered model's name.
        version: its version.
        folder: where its files lie on this disk.
        before: a version that answers on this machine: what it was compiled to be is not tried again.

    Raises:
        EngineError: the files are no classifier, or it does not answer.
    """

    def __init__(self, model: str, version: str, folder: Path, before: "Engine | None" = None) -> None:
        from include.training.scoring import Scorer  # seconds: a server that has nothing to serve goes without

        self.model, self.version = model, version
        try:
            self._scorer = Scorer(str(folder), compiled=True, precisions=before.precisions if before else ())
            self.labels, self.max_length = self._scorer.labels, self._scorer.max_length
            self._tokenizing = Lock()  # a tokenizer keeps its cut between calls
            answers = self.probabilities(self.tokenize(WARM_UP).rows)
        except Exception as error:
            raise EngineError(f"{model} version {version} cannot be loaded: {error}") from error
        if not np.isfinite(answers).all():
            raise EngineError(f"{model} version {version} answers with numbers that are none: its weights are damaged")

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which it was compiled for this machine; none where torch answers."""
        return self._scorer.precisions

    def tokenizes_soon(self, texts: list[str]) -> bool:
        """Whether that takes less time than to ask another thread for it."""
        return sum(map(len, texts)) <= SHORT and not self._tokenizing.locked()

    def tokenize(self, texts: list[str] | tuple[str, ...]) -> Tokens:
        """Token ids of each text, and whether it was cut. Threads may call it at once."""
        with self._tokenizing:
            # One token more than the model reads shows which texts are too long; only those are tokenised again.
            rows = self._scorer.tokenize(texts, self.max_length + 1)
            cut = [len(row) > self.max_length for row in rows]
            again = iter(self._scorer.tokenize([text for text, long in zip(texts, cut, strict=True) if long]))
        return Tokens([next(again) if long else row for row, long in zip(rows, cut, strict=True)], cut)

    def probabilities(self, rows: "list[Row]") -> NDArray[np.float32]:
        """(texts, labels) float32. One thread at a time."""
        return self._scorer.probabilities(rows)
