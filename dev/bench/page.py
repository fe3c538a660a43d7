"""Writes docs/benchmarks.md from the JSON files that the measurements leave behind."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import psutil

from dev.bench.runs import OTHERS_BUSY
from dev.pages import templates
from dev.state import REPOSITORY

DOCS = REPOSITORY / "docs"
CPU, QUALITY, GPU, READING, PIECES, ETL = (
    DOCS / "benchmarks" / f"{name}.json" for name in ("cpu", "quality", "gpu", "reading", "pieces", "etl")
)
VERSIONS = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


def write() -> Path:
    """Renders the page from the files that are there; its path."""
    page = DOCS / "benchmarks.md"
    files = (CPU, QUALITY, GPU, READING, PIECES, ETL)
    page.write_text(render(*(json.loads(path.read_text()) if path.exists() else None for path in files)))
    return page


def render(
    cpu: dict[str, Any] | None,
    quality: dict[str, Any] | None,
    gpu: dict[str, Any] | None,
    reading: dict[str, Any] | None = None,
    pieces: dict[str, Any] | None = None,
    etl: dict[str, Any] | None = None,
) -> str:
    """The page in Markdown.

    Args:
        cpu: What `make bench` found.
        quality: What `make bench-quality` found so far.
        gpu: ``rows``, a list of dicts with equal or different keys, and ``facts``, a dict: card, versions, command.
        reading: ``cases`` and perhaps ``pace``, what `make bench-reading` found.
        pieces: ``rows`` and ``facts`` as in `gpu`: what each piece of the speed code gains.
        etl: ``rows``, ``samples`` and ``ratios``: what `make bench-etl` found.
    """
    environment = templates(Path(__file__).parent)
    environment.filters |= {"median": median, "listed": listed}
    template = environment.get_template("benchmarks.md.jinja")
    return template.render(
        cpu=cpu,
        quality=quality,
        accuracies=accuracies(quality) if quality else {},
        gpu=gpu,
        gpu_columns=columns(gpu["rows"]) if gpu else [],
        reading=reading,
        pieces=pieces,
        etl=etl,
        etl_others=busiest_while_reading(etl) if etl else 0.0,
        case_counts=case_counts(reading["cases"]["cases"]) if reading else {},
        reading_others=busiest_while_reading(reading["pace"]) if reading and reading.get("pace") else 0.0,
        busiest=busiest(cpu) if cpu else 0.0,
        busy_limit=OTHERS_BUSY,
    )


def machine() -> dict[str, Any]:
    """The machine and the versions that a measurement stands on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
    }


def accuracies(quality: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per side: accuracy by seed, their mean and standard deviation (0.0 for one seed)."""
    sides: dict[str, dict[int, float]] = {}
    for one in quality["runs"]:
        sides.setdefault(one["side"], {})[one["seed"]] = one["accuracy"]
    return {
        side: {"seeds": seeds, "mean": mean(seeds.values()), "spread": stdev(seeds.values()) if len(seeds) > 1 else 0.0}
        for side, seeds in sides.items()
    }


def case_counts(cases: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """How many cases each reader gets right: by reader, then by folder; a subject's own name stands for all of it.

    Each count has ``right``, ``other_texts`` (of those, how many with other texts than this project reads), ``all``.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    groups = list(dict.fromkeys(case["path"].split("/")[0] for case in cases if case["about"] == "reading"))
    for group in (*groups, "reading", "labels and tools"):
        chosen = [case["readers"] for case in cases if group in (case["about"], _folder(case))]
        for reader in cases[0]["readers"]:
            verdicts = [case[reader] for case in chosen]
            other = verdicts.count("other texts")
            counts = {"right": verdicts.count("right") + other, "other_texts": other, "all": len(verdicts)}
            found.setdefault(reader, {})[group] = counts
    return found


def _folder(case: dict[str, Any]) -> str:
    return str(case["path"].split("/")[0]) if case["about"] == "reading" else ""


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """All keys of the rows, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def busiest(cpu: dict[str, Any]) -> float:
    """The largest share of the machine that others had when a run started."""
    return float(max(run["others"] for runs in cpu["training"]["runs"].values() for run in runs))


def busiest_while_reading(pace: dict[str, Any]) -> float:
    """What ran beside the readers' measurement at its busiest, as ``busiest`` says it."""
    return float(max(sample["others"] for samples in pace["samples"].values() for sample in samples))


def listed(values: list[float], digits: int = 1) -> str:
    """Numbers as a table's cell shows them: 1.0, 2.0, 3.0."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
