"""What training costs in floating-point operations, and how many a machine does in a second: their ratio is the MFU."""

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import torch

SIZES = {"cuda": 8192, "cpu": 2048}
TIMES = {"cuda": 50, "cpu": 20}


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of the product of two square matrices of random numbers."""
    size, times = SIZES[device], TIMES[device]
    left, right = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    for _ in range(max(2, times // 5)):
        left @ right
    _wait(device)
    began = time.perf_counter()
    for _ in range(times):
        left @ right
    _wait(device)
    return 2 * size**3 * times / (time.perf_counter() - began)


def operations(lengths: Iterable[int], config: Any) -> float:
    """Floating-point operations of training a BERT on texts of these lengths: forward, and twice that backward.

    Matrix products only, and no padding.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    return float(sum(3 * (2 * weights * length + layers * 4 * hidden * length**2) for length in lengths))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main(model: str, lengths: list[int]) -> None:
    """Prints, as JSON, a CPU's rate and what one of these texts costs the mean: for processes that keep small."""
    from transformers import AutoConfig

    from include.training.fast.hardware import bfloat16_is_quick

    dtype = torch.bfloat16 if bfloat16_is_quick("cpu") else torch.float32
    found = {
        "matrix_rate": matmul_rate("cpu", dtype),
        "matrix_type": str(dtype).removeprefix("torch."),
        "operations_per_text": operations(lengths, AutoConfig.from_pretrained(model)) / len(lengths),
        "mean_tokens": sum(lengths) / len(lengths),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
