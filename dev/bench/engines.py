"""Other engines than torch, from the same weights: what a server could answer with on a CPU."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answer = Callable[[list[str]], NDArray[np.float32]]


def engines(folder: Path) -> dict[str, Answer]:
    """Probabilities (texts, labels) of a saved classifier's texts, by our scorer, called torch, and by OpenVINO.

    OpenVINO is left out if it is not installed.
    """
    from include.training.scoring import Scorer

    scorer = Scorer(str(folder))
    found: dict[str, Answer] = {"torch": lambda texts: scorer.probabilities(scorer.tokenize(texts))}
    if find_spec("openvino") is None:
        return found
    openvino = import_module("openvino")
    model = openvino.convert_model(_module(folder), example_input=_example())
    model.reshape({0: [-1, -1], 1: [-1, -1]})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", hints)

    def answer(texts: list[str]) -> NDArray[np.float32]:
        rows = scorer.tokenize(texts)
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)], mask[at, : len(row)] = row, 1
        logits = compiled([ids, mask])[0]
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)

    return found | {"openvino": answer}


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
