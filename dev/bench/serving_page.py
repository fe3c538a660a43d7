"""docs/serving-benchmarks.md, from what ``make bench-serving`` has measured."""

from collections.abc import Mapping
from statistics import median
from typing import Any

AIMS = {"mlflow": "3; with bfloat16 5", "1_text_a_request": "0.6", "32_texts_a_request": "0.8"}


def render(found: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    host = found["machine"]
    machine = f"{host['processor']}, {host['cores']} cores, {host['memory_gib']} GiB, torch {host['versions']['torch']}"
    return "\n".join(
        [
            "# The model server, measured",
            "",
            f"`{found['command']}` wrote this page and `.local/serving.json`, which has every sample. {found['when']}, "
            f"{machine}; load average {', '.join(map(str, found['load']))}; rounds: {found['rounds']}, of "
            f"{found['requests']} requests of one short text for each number of callers (an eighth with 32 texts, a "
            "quarter with long texts).",
            "",
            "All sides serve one version of MiniLM (22 M parameters, 77 labels) and get the same texts over HTTP, one "
            "side after the other in each round. Callers send the next request when they have the answer to the last; "
            "they are one thread that parses in C, since they share the processor with the side that is measured.",
            "",
            *_ratios(found),
            "",
            *_table(found["samples"]),
            "",
            "Four callers of a text each waited, by the 99th percentile, "
            f"{_list(found['p99_ms_by_swap']['between'])} ms between swaps of the version that answers, and "
            f"{_list(found['p99_ms_by_swap']['during'])} ms during each.",
            "",
            "## Engines without a server",
            "",
            *_engines(found["raw_engine_texts_per_second"]),
            "",
        ]
    )


def _ratios(found: Mapping[str, Any]) -> list[str]:
    rows = ["| | times | aimed at |", "|---|---|---|"]
    for name, value in found.items():
        if not name.startswith("vs_"):
            continue
        if isinstance(value, dict):
            for key, one in value.items():
                raw = found["raw_engine"][key]
                rows.append(
                    f"| the scorer alone, {key.replace('_', ' ')}: batches of {raw['texts_a_batch']}, "
                    f"{raw['texts_per_second']:.0f} texts/s | {one} | {AIMS.get(key, '')} |"
                )
        else:
            side = name.removeprefix("vs_").removesuffix("_at_16_callers")
            rows.append(f"| {side}, 16 callers | {value} | {AIMS.get(side, '')} |")
    return [
        "Texts a second of our server, as a multiple of others'. The scorer alone has batches of the size that the "
        "server's had on average.",
        "",
        *rows,
    ]


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{number:.0f}" for number in numbers)


def _table(samples: list[dict[str, Any]]) -> list[str]:
    keys = ("tokens", "texts_per_request", "callers", "side")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in samples:
        groups.setdefault(tuple(one[key] for key in keys), []).append(one)
    rows = [
        "| tokens | texts a request | callers | | texts/s | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (tokens, per_request, callers, side), mine in sorted(groups.items(), key=lambda item: item[0][:3]):
        values = [median(one[name] for one in mine) for name in ("texts_per_second", "p50_ms", "p95_ms", "p99_ms")]
        numbers = " | ".join(f"{value:.0f}" for value in values)
        rows.append(f"| {tokens} | {per_request} | {callers} | {side} | {numbers} |")
    return ["Medians of the rounds.", "", *rows]


def _engines(engines: Mapping[str, Mapping[Any, float]]) -> list[str]:
    sizes = list(next(iter(engines.values())))
    head = [f"| texts a batch | {' | '.join(map(str, sizes))} |", f"|---|{'---|' * len(sizes)}"]
    return [
        "Texts a second, tokenising included, in turns: the scorer that the server answers with, and what it chooses "
        "from on this processor. What is too close to tell in bfloat16 is scored again, in all of them.",
        "",
        *head,
        *(f"| {name} | {' | '.join(f'{paces[size]:.0f}' for size in sizes)} |" for name, paces in engines.items()),
    ]
