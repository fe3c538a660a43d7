"""Training only the word vectors that the data use.

Of BERT's 30,522 word vectors, half the weights of a small model, a data set of short texts uses some thousand. The
others get no gradient, so AdamW does nothing to them but decay them, all by the same factor. Left out of training they
cost neither memory nor time, and put back with that factor they are what they would have become.
"""
# ruff: noqa: TID253 - tensors are all this module is about; import it inside functions

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Vocabulary:
    """The part of a model's word vectors that is being trained.

    Args:
        model: Its input embeddings are replaced by the rows in use, in the order of their ids.
        used: (vocabulary) bool: the ids that occur in the data.
    """

    def __init__(self, model: Any, used: NDArray[np.bool_]) -> None:
        self._embedding = model.get_input_embeddings()
        self._all = self._embedding.weight.detach()
        # The padding's id stays what it is, since models look at it: all ids up to it stay too.
        ids = np.flatnonzero(used | (np.arange(len(used)) <= (self._embedding.padding_idx or 0)))
        self._ids = torch.from_numpy(ids)
        self.renumbered = np.zeros(len(used), dtype=np.int64)  # old id → new id
        self.renumbered[ids] = np.arange(len(ids))
        #: Of the words and their vectors before training: states of training fit together only if it is the same.
        self.digest = hashlib.sha256(ids.tobytes() + self._all.numpy().tobytes()).hexdigest()[:8]
        # A last row of ones that no text uses: what decay makes of it is the factor for all rows left out.
        decayed = self._all.new_ones(1, self._all.shape[1])
        self._put(torch.cat([self._all[self._ids], decayed]))

    def restore(self) -> None:
        """Puts all word vectors back, the trained ones and the decayed ones."""
        trained = self._embedding.weight.detach()
        weights = self._all * trained[-1, 0].cpu()
        weights[self._ids] = trained[:-1].cpu()
        self._put(weights)

    def _put(self, weights: torch.Tensor) -> None:
        self._embedding.weight = torch.nn.Parameter(weights)
        self._embedding.num_embeddings = len(weights)
