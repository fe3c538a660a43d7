"""What ``make logs`` shows: runs, what they do and how they end, and what the programs complain of."""

import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from dev.stack import Stack

SHOWN_RUNS = 10  # of the past
LOOK_EVERY_SECONDS = 3.0
LEFT_OUT = ("s3_upload_listener",)  # it runs all day, and a claim is seen by the run that it starts
COMPLAINT = re.compile(r"\b(WARN(ING)?|ERROR|CRITICAL|FATAL|Traceback)\b|\b\w+(Error|Exception): ")
"""What is worth a look. All else that a program says is in its log: ``make logs PROGRAM=…``."""

_HEADER = re.compile(r"==> (.*)\.log <==$")


def follow(stack: Stack) -> Iterator[str]:
    """Lines as they come, without end: the last runs, each that begins, goes on or ends, and complaints."""
    lines: queue.Queue[str] = queue.Queue()
    files = sorted(stack.state.logs.glob("*.log"))
    for target, args in ((_watch_runs, (stack, lines)), (_watch_files, (files, lines))):
        threading.Thread(target=target, args=args, daemon=True).start()
    while True:
        yield lines.get()


def _watch_runs(stack: Stack, lines: "queue.Queue[str]") -> None:
    seen: dict[str, str] = {}
    while True:
        try:
            with stack.airflow as airflow:
                found = runs(airflow)
                for run in found:
                    run["doing"] = doing(airflow, run) if run["state"] == "running" else ""
                for line in changes(found, seen):
                    lines.put(line)
        except (httpx.HTTPError, FileNotFoundError):
            pass  # not up yet, or no more: what the programs' logs say
        time.sleep(LOOK_EVERY_SECONDS)


def runs(airflow: httpx.Client) -> list[dict[str, Any]]:
    """The newest runs of all DAGs that do something, the oldest of them first."""
    asked = {"page_limit": 100, "order_by": "-start_date"}
    found = airflow.post("/dags/~/dagRuns/list", json=asked).raise_for_status().json()["dag_runs"]
    return [run for run in reversed(found) if run["dag_id"] not in LEFT_OUT][-SHOWN_RUNS:]


def doing(airflow: httpx.Client, run: dict[str, Any]) -> str:
    """The tasks of a run that are at work or wait for something outside."""
    answer = airflow.get(f"/dags/{run['dag_id']}/dagRuns/{quote(run['dag_run_id'], safe='')}/taskInstances")
    tasks = answer.raise_for_status().json()["task_instances"]
    words = {"running": "", "deferred": " (waits)", "up_for_retry": " (is tried again)"}
    return ", ".join(f"{task['task_id']}{words[task['state']]}" for task in tasks if task["state"] in words)


def changes(found: list[dict[str, Any]], seen: dict[str, str]) -> Iterator[str]:
    """A line for each run that is new or has another state than in ``seen``, which then has it."""
    for run in found:
        more = run.get("doing") or (run.get("note") or "").strip().split("\n")[0]
        said = f"{run['state']}: {more}" if more else run["state"]
        key = f"{run['dag_id']} {run['dag_run_id']}"
        if seen.get(key) != said:
            seen[key] = said
            at = (run.get("end_date") or run.get("start_date") or "")[11:19]
            yield f"{at or '--:--:--'} run        {key} {said}"


def _watch_files(files: list[Path], lines: "queue.Queue[str]") -> None:
    tail = subprocess.Popen(
        ["tail", "-n", "0", "-F", *map(str, files)], stdout=subprocess.PIPE, text=True, errors="replace"
    )
    assert tail.stdout is not None
    for line in told(tail.stdout):
        lines.put(line)


def told(tailed: Iterator[str]) -> Iterator[str]:
    """The complaints among the lines of ``tail -F`` on several logs, each with its program's name."""
    program = ""
    for line in (one.rstrip() for one in tailed):
        if header := _HEADER.match(line):
            program = Path(header[1]).name
        elif COMPLAINT.search(line):
            yield f"         {program:<10} {line}"
