"""Measures training: texts per second, start-up and memory of our trainer and of run_classification."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from dev.bench import data, sides
from dev.bench.plan import Plan, ratio
from dev.bench.plan import in_turns as turns
from dev.bench.runs import Launch, Run, run
from dev.bench.sides import DEFAULTS, Arguments, Baseline, Ours
from dev.state import REPOSITORY

Tell = Callable[[str], None]
Found = dict[str, Any]

OURS, OURS_PLAIN, SCRIPT, BEST = "ours", "ours, BERT's own head", "run_classification", "best Trainer arguments"


@dataclass(frozen=True)
class Bench:
    """What a measurement needs.

    Args:
        texts: The rows.
        plan: How much is measured.
        baseline: run_classification.
        ours: Our trainer on the base model.
        ours_plain: The same with the baseline's head.
        work: An empty folder.
        tell: Gets a line per run.
        mean_tokens: Of a training text.
    """

    texts: data.Texts
    plan: Plan
    baseline: Baseline
    ours: Ours
    ours_plain: Ours
    work: Path
    tell: Tell
    mean_tokens: float

    def workload(self, name: str, texts: int | None = None) -> Path:
        """So many training rows, or all, in a folder of that name; a multiple of the batch size."""
        folder, size = self.work / name, self.baseline.recipe.batch_size
        enough = min(texts or len(self.texts.train), len(self.texts.train) - self.plan.validation_texts) // size * size
        return folder if folder.exists() else self.texts.workload(folder, enough, self.plan.validation_texts)

    def rows_for(self, arguments: Arguments, few: Path) -> Path:
        """What run_classification trains on with these arguments."""
        return self.workload("all-rows") if arguments.steps else few

    def pace(self, done: Run) -> float:
        """Texts of the mean length per second: the real tokens of the timed steps over the seconds they took."""
        return round(done.tokens / done.step_seconds / self.mean_tokens, 2)

    def pace_of_cpu(self, done: Run) -> float:
        """The same per second of one core, in which others on the machine show less."""
        return round(done.tokens / done.step_cpu_seconds / self.mean_tokens, 2)


def measure(bench: Bench) -> Found:
    """All of training: the quickest arguments in one short run each, throughput and memory, start-up."""
    few = bench.workload("trial-rows", bench.plan.trial_texts)
    candidates = sides.candidates(bfloat16=_bfloat16_is_quick())
    trials = {one.name: _trial(bench, bench.rows_for(one, few), one) for one in candidates}
    best = max(candidates, key=lambda one: trials[one.name])
    bench.tell(f"quickest arguments: {best.name}")
    runs, extra = throughput(bench, best)
    paces = {side: [bench.pace(done) for done in some] for side, some in runs.items()}
    return {
        # The same model on either side, and so the same head.
        "train_vs_run_classification": ratio(paces, OURS_PLAIN, SCRIPT),
        "train_vs_best_trainer_arguments": ratio(paces, OURS_PLAIN, BEST),
        "training": {
            "best_arguments": best.name,
            "trials": trials,
            "texts_per_second": paces,
            "texts_per_cpu_second": {side: [bench.pace_of_cpu(done) for done in some] for side, some in runs.items()},
            "peak_mib": {side: [done.peak_mib for done in some] for side, some in runs.items()},
            "runs": {side: [asdict(done) for done in some] for side, some in runs.items()},
            "ours": extra,
            "start_up": start_up(bench),
        },
    }


def _bfloat16_is_quick() -> bool:
    """Asked in a process of its own: torch would make this one large, and with it the peaks of those it starts."""
    question = "from include.training.fast.hardware import bfloat16_is_quick as quick; print(quick('cpu'))"
    answer = subprocess.run(
        [sys.executable, "-c", question], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip() == "True"


def _trial(bench: Bench, workload: Path, arguments: Arguments) -> float:
    folder = bench.work / "trials" / arguments.name
    pace = bench.pace(run(bench.baseline.launch(workload, folder, folder / "cache", arguments), folder))
    shutil.rmtree(folder)
    bench.tell(f"trial: {arguments.name}: {pace:.1f} texts/s")
    return pace


def throughput(bench: Bench, best: Arguments) -> tuple[dict[str, list[Run]], Found]:
    """Every side's runs, in turns, and how our trainer says that it trained."""
    few = bench.workload("rows", bench.plan.texts)
    runs: dict[str, list[Run]] = {OURS: [], OURS_PLAIN: [], SCRIPT: [], BEST: []}
    extra: Found = {}
    for number, side in enumerate(turns(tuple(runs), bench.plan.samples)):
        folder = bench.work / f"run-{number}"
        launch = _launch(
            bench, side, bench.rows_for(best, few) if side == BEST else few, folder, folder / "cache", best
        )
        done = run(launch, folder)
        runs[side].append(done)
        bench.tell(f"{side}: {bench.pace(done):.1f} texts/s, {done.peak_mib:.0f} MiB, others {done.others:.0%}")
        if side == OURS:
            result = bench.ours.result(launch)
            extra = result["extra"] | result.get("throughput", {})
        shutil.rmtree(folder)
    return runs, extra


def start_up(bench: Bench) -> Found:
    """Seconds from the process's start to the end of its first step, on all rows; warm: another job on the same."""
    workload = bench.workload("all-rows")
    found: dict[str, dict[str, list[float]]] = {side: {"cold": [], "warm": []} for side in (OURS, SCRIPT)}
    for number, side in enumerate(turns((OURS, SCRIPT), bench.plan.samples)):
        cache = bench.work / f"cache-{number}"
        for state in ("cold", "warm"):
            folder = bench.work / f"start-{number}-{state}"
            done = run(_launch(bench, side, workload, folder, cache, DEFAULTS), folder, first_step_only=True)
            found[side][state].append(done.first_step)
        bench.tell(
            f"{side}: first step after {', '.join(f'{s[-1]:.1f} s {state}' for state, s in found[side].items())}"
        )
    medians = {side: {state: median(values) for state, values in states.items()} for side, states in found.items()}
    return {"rows": len(data.read(workload, "train")), "median": medians, "samples": found}


def _launch(bench: Bench, side: str, workload: Path, folder: Path, cache: Path, best: Arguments) -> Launch:
    if side in (SCRIPT, BEST):
        return bench.baseline.launch(workload, folder, cache, best if side == BEST else DEFAULTS)
    return (bench.ours if side == OURS else bench.ours_plain).launch(workload, folder, cache)
