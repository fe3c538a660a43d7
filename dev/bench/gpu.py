"""Measures training on a machine's GPU: ``python -m dev.bench.gpu --model FOLDER --data train.csv --test test.csv``.

Speed: BERT-base (its weights are random: speed does not depend on them) on made-up texts of exactly 512 tokens and on
texts of skewed lengths. Quality: the base model in FOLDER on the data, three seeds. Writes docs/benchmarks/gpu.json.
"""

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from dev.bench import data
from dev.bench.page import GPU
from dev.bench.plan import Recipe
from dev.bench.quality import VALIDATION_SHARE
from dev.bench.runs import run
from dev.bench.scoring import accuracy, answer
from dev.bench.sides import Arguments, Baseline, Ours, without_mean_pooling
from include.training.fast.gpu import COMPILE_FROM

LONGEST = 512
TEXTS = 24_576  # that our trainer sees in an epoch
FEW_TEXTS = 6_144  # for run_classification, which holds them all padded in memory
LABELS = 20
VALIDATION_TEXTS = 64
AT_ONCE = 4  # quality runs: what they learn does not depend on how quick they are


@dataclass(frozen=True)
class Side:
    """One row of the table.

    Args:
        name: As the table calls it.
        batch_size: Texts per step.
        arguments: Of plain Trainer; None for our trainer.
    """

    name: str
    batch_size: int
    arguments: Arguments | None = None


def sides(workload: "Workload") -> list[Side]:
    """Ours, run_classification as it comes, and what can be got out of it by arguments."""
    dynamic = ("--pad_to_max_length", "False", "--bf16", *workload.sampling)
    return [
        Side("ours", workload.ours_batch),
        Side("run_classification, defaults", 8, Arguments("defaults", steps=150)),
        Side("run_classification, bf16, dynamic padding, batch 128", 128, Arguments("best", dynamic, steps=60)),
        Side("the same, compiled", 128, Arguments("compiled", (*dynamic, "--torch_compile"), steps=60)),
    ]


def matmul_rate() -> float:
    """Floating-point operations per second of a product of two 8192x8192 matrices of random bfloat16."""
    size, times = 8192, 50
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(times):
        left @ right
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        left @ right
    torch.cuda.synchronize()
    return 2 * size**3 * times / (time.perf_counter() - began)


def operations(lengths: Sequence[int], config: BertConfig) -> float:
    """Of training on texts of these lengths: matrix products forward and, twice that, backward; padding not counted."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    return float(sum(3 * (2 * weights * length + layers * 4 * hidden * length**2) for length in lengths))


def made_up(lengths: Sequence[int], tokenizer: Any) -> pd.DataFrame:
    """Texts of exactly these lengths in tokens, special ones included."""
    dice = random.Random(5)
    words = [word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2]
    texts = [" ".join(dice.choices(words, k=length - 2)) for length in lengths]
    return pd.DataFrame({"text": texts, "label": [f"label {dice.randrange(LABELS)}" for _ in texts]})


def skewed(count: int) -> list[int]:
    """Lengths as of messages: most of some fifty tokens, some of hundreds."""
    dice = random.Random(6)
    return [min(LONGEST, max(5, round(math.exp(dice.gauss(4.0, 0.9))))) for _ in range(count)]


@dataclass(frozen=True)
class Workload:
    """Made-up texts for BERT-base.

    Args:
        name: As the table calls it.
        lengths: Of the texts, in tokens.
        ours_batch: Texts in a step of ours.
        sampling: Arguments by which plain Trainer pads less.
    """

    name: str
    lengths: list[int]
    ours_batch: int
    sampling: tuple[str, ...] = ()

    def save(self, folder: Path, tokenizer: Any, texts: int) -> Path:
        """The first of the texts, in a folder of their own."""
        rows = made_up(self.lengths[:texts], tokenizer)
        return data.save(folder / f"{self.name} {texts}".replace(" ", "-"), rows, rows[:VALIDATION_TEXTS])


def workloads() -> list[Workload]:
    """Texts of one length, and of skewed lengths."""
    grouped = ("--train_sampling_strategy", "group_by_length")
    return [Workload("512 tokens each", [LONGEST] * TEXTS, 256), Workload("skewed", skewed(TEXTS), 1024, grouped)]


@dataclass(frozen=True)
class Speed:
    """Measures one side after the other.

    Args:
        tokenizer: For the made-up texts.
        mlflow: URI of a tracking server or store.
        work: An empty folder.
        rate: Of the card's matrix products, in operations per second.
    """

    tokenizer: Any
    mlflow: str
    work: Path
    rate: float

    def base(self) -> Path:
        """BERT-base with random weights."""
        folder = self.work / "bert-base"
        if not folder.exists():
            BertModel(BertConfig()).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        return folder

    def row(self, workload: Workload, side: Side) -> dict[str, Any]:
        """A row of the table."""
        texts = TEXTS if side.arguments is None else FEW_TEXTS
        rows = workload.save(self.work, self.tokenizer, texts)
        # So many epochs that our trainer, which decides by the tokens it is to see, compiles.
        epochs = math.ceil(1.1 * COMPILE_FROM / sum(workload.lengths))
        recipe = Recipe(epochs=epochs, learning_rate=2e-5, batch_size=side.batch_size, max_length=LONGEST)
        folder = self.work / "run"
        if side.arguments is None:
            launch = Ours(self.base(), recipe, self.mlflow, on_gpu=True).launch(rows, folder, folder / "lake")
        else:
            launch = Baseline(self.base(), recipe, on_gpu=True).launch(rows, folder, folder, side.arguments)
        done = run(launch, folder)
        shutil.rmtree(folder)
        shutil.rmtree(rows)
        pace, tokens = done.steps * side.batch_size / done.step_seconds, mean(workload.lengths)
        return {
            "texts": workload.name,
            "side": side.name,
            "texts/s": round(pace),
            "tokens/s": round(pace * tokens),
            "MFU": round(pace * operations(workload.lengths, BertConfig()) / len(workload.lengths) / self.rate, 3),
            "tokens/step": round(side.batch_size * tokens),
            "timed steps": done.steps,
            "first step after": f"{done.first_step:.0f} s",
        }


def quality(model: Path, texts: data.Texts, mlflow: str, work: Path) -> dict[str, list[float]]:
    """Test accuracy by side, a figure per seed."""
    plain = without_mean_pooling(model, work / "plain-model")
    recipe = Recipe(epochs=4)
    large = replace(recipe, batch_size=128, learning_rate=4e-4)
    candidates: dict[str, Baseline | Ours] = {
        "run_classification, batch 32": Baseline(model, recipe, on_gpu=True),
        "ours, BERT's own head, batch 32": Ours(plain, recipe, mlflow, on_gpu=True),
        "ours, batch 32": Ours(model, recipe, mlflow, on_gpu=True),
        "ours, batch 128, twice the learning rate": Ours(model, large, mlflow, on_gpu=True),
    }
    rows = texts.workload(work / "data", len(texts.train), int(VALIDATION_SHARE * len(texts.train)))
    test = data.save(work / "test", data.read(rows, "train"), texts.test)

    def one(side: str, seed: int) -> float:
        candidate = candidates[side]
        candidate = replace(candidate, recipe=replace(candidate.recipe, seed=seed))
        folder = work / f"{seed}-{side}".replace(" ", "-").replace(",", "").replace("'", "")
        if isinstance(candidate, Baseline):
            run(candidate.launch(test, folder, folder / "cache"), folder)
            found = float(json.loads((folder / "output" / "all_results.json").read_text())["eval_accuracy"])
        else:
            launch = candidate.launch(rows, folder, folder / "lake")
            run(launch, folder)
            answers = answer(
                folder / "scoring", "ours", str(candidate.result(launch)["model_uri"]), list(texts.test["text"])
            )
            found = accuracy(answers["labels"], list(texts.test["label"]))
        print(side, seed, found, flush=True)
        return found

    jobs = [(side, seed) for seed in (1, 2, 3) for side in candidates]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda job: one(*job), jobs))
    return {side: [value for (name, _), value in zip(jobs, found, strict=True) if name == side] for side in candidates}


def main() -> None:
    """Measures what is asked for and adds it to the file."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.gpu", description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("speed", "quality"))
    parser.add_argument("--model", type=Path, required=True, help="folder of a base model")
    parser.add_argument("--data", type=Path, required=True, help="labelled .csv, .jsonl or .parquet file")
    parser.add_argument("--test", type=Path, required=True, help="labelled file to score")
    parser.add_argument("--mlflow", required=True, help="URI of an MLflow tracking server or store")
    parser.add_argument("--out", type=Path, default=GPU)
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    with TemporaryDirectory(prefix="bench-") as folder:
        work = Path(folder)
        found["facts"] = {
            "card": torch.cuda.get_device_name(),
            "bf16 matrix product, 8192x8192": f"{matmul_rate() / 1e12:.0f} TFLOP/s measured",
            "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")),
            "command": f"python -m dev.bench.gpu {' '.join(options.parts)}",
        }
        if "speed" in options.parts:
            speed = Speed(AutoTokenizer.from_pretrained(options.model), options.mlflow, work, matmul_rate())
            found["rows"] = [speed.row(one, side) for one in workloads() for side in sides(one)]
        if "quality" in options.parts:
            texts = data.load(options.data, options.test)
            by_side = quality(options.model, texts, options.mlflow, work)
            found["quality"] = [
                {"side": side, "accuracy": round(mean(values), 4), "±": round(stdev(values), 4), "seeds": values}
                for side, values in by_side.items()
            ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
