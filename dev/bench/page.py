"""Writes docs/benchmarks.md from the JSON files that the measurements leave behind."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import jinja2
import psutil

from dev.bench.runs import OTHERS_BUSY
from dev.state import REPOSITORY

DOCS = REPOSITORY / "docs"
CPU, QUALITY, GPU = (DOCS / "benchmarks" / f"{name}.json" for name in ("cpu", "quality", "gpu"))
VERSIONS = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


def write() -> Path:
    """Renders the page from the files that are there; its path."""
    page = DOCS / "benchmarks.md"
    page.write_text(render(*(json.loads(path.read_text()) if path.exists() else None for path in (CPU, QUALITY, GPU))))
    return page


def render(cpu: dict[str, Any] | None, quality: dict[str, Any] | None, gpu: dict[str, Any] | None) -> str:
    """The page in Markdown.

    Args:
        cpu: What `make bench` found.
        quality: What `make bench-quality` found so far.
        gpu: ``rows``, a list of dicts with equal or different keys, and ``facts``, a dict: card, versions, command.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"median": median, "listed": listed}
    template = environment.get_template("benchmarks.md.jinja")
    return template.render(
        cpu=cpu,
        quality=quality,
        accuracies=accuracies(quality) if quality else {},
        gpu=gpu,
        gpu_columns=columns(gpu["rows"]) if gpu else [],
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


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """All keys of the rows, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def busiest(cpu: dict[str, Any]) -> float:
    """The largest share of the machine that others had when a run started."""
    return float(max(run["others"] for runs in cpu["training"]["runs"].values() for run in runs))


def listed(values: list[float], digits: int = 1) -> str:
    """Numbers as a table's cell shows them: 1.0, 2.0, 3.0."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
