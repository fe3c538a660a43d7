"""What answers without a server, and the same weights for ONNX Runtime."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

SERVERS = "the server's"
Answer = Callable[[list[str]], NDArray[np.float32]]


def engines(folder: Path) -> dict[str, Answer]:
    """Probabilities (texts, labels) of a saved classifier's texts, by the server's scorer and by what it chooses from.

    Each has its close calls decided as in the server.
    """
    from include.training.fast import Prepared, openvino
    from include.training.fast.hardware import bfloat16_is_quick
    from include.training.scoring import Scorer

    def answers(scorer: Scorer, quick: list[Prepared] | None = None) -> Answer:
        one = copy(scorer)
        one._quick = scorer._quick if quick is None else quick
        return lambda texts: one.probabilities(one.tokenize(texts))

    plain = Scorer(str(folder))
    found = {SERVERS: answers(Scorer(str(folder), compiled=True)), "torch, float32": answers(plain, [])}
    if plain._quick:
        found["torch, bfloat16"] = answers(plain)
    converted = openvino._converted(plain._exact.model)
    compiled: list[Prepared] = []
    for precision in (openvino.FLOAT32, openvino.BFLOAT16)[: 1 + bfloat16_is_quick("cpu")]:
        one = openvino.Compiled(openvino._compiled(converted, precision), precision)
        compiled.insert(0, Prepared(one, plain._exact.collator, one.bfloat16, sorted_by_length=True))
        found[f"OpenVINO, {'bfloat16' if one.bfloat16 else 'float32'}"] = answers(plain, list(compiled))
    return found


def paces(
    answers: Mapping[str, Answer], texts: list[str], sizes: Iterable[int], batches: int = 40
) -> dict[str, dict[int, float]]:
    """Texts a second, tokenising included, in batches of so many texts; the median of three turns of all of them."""
    dice = random.Random(1)
    pieces = {size: [dice.sample(texts, size) for _ in range(batches)] for size in sizes}
    found: dict[str, dict[int, list[float]]] = {name: {size: [] for size in pieces} for name in answers}
    for _ in range(4):  # the first to warm up
        for size, mine in pieces.items():
            for name, answer in answers.items():
                begun = time.perf_counter()
                for piece in mine:
                    answer(piece)
                found[name][size].append(size * batches / (time.perf_counter() - begun))
    return {name: {size: round(median(turns[1:]), 1) for size, turns in mine.items()} for name, mine in found.items()}


def export_onnx(folder: Path) -> bool:
    """Writes ``model.onnx`` beside a saved classifier; False if what that needs is not installed."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return False
    import torch

    free = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        _module(folder),
        _example(),
        str(folder / "model.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "texts"}},
        dynamo=False,
    )
    return True


def _example() -> tuple[Any, Any]:
    import torch

    return torch.randint(1000, 2000, (3, 17)), torch.ones(3, 17, dtype=torch.long)


def _module(folder: Path) -> Any:
    """Token ids and mask in, logits out."""
    import torch

    from include.training.model import load_classifier

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = load_classifier(str(folder)).model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    return Logits().eval()
