"""From an upload to the champion: how long each step takes on a fresh stack, for ``make bench-upload``."""

import argparse
import os
import time
from datetime import datetime

from rich.console import Console
from rich.table import Table

from dev import sample_data
from dev.observe import OVER, Observer
from dev.stack import Stack, fresh
from dev.state import REPOSITORY

console = Console(highlight=False)


def upload(stack: Stack, rows: int) -> tuple[float, list[tuple[str, float, float]]]:
    """Uploads made-up messages and waits for the end of their run.

    Returns:
        Seconds from the upload until the version was champion, and each task with its seconds until it began, and its
        own. Raises RuntimeError if no champion came of it.
    """
    observer = Observer(stack)
    content = sample_data.messages(rows).to_csv(index=False).encode()
    stack.s3.put_object(Bucket=stack.env["BERT_BUCKET"], Key="incoming/messages.csv", Body=content)
    uploaded, champion = time.time(), 0.0
    run_id = observer.new_run(set())
    while observer.run(run_id)["state"] not in OVER:
        if not champion and observer.champion():
            champion = time.time()
        time.sleep(0.2)
    if not champion:
        raise RuntimeError(observer.report(run_id)["reason"])
    tasks = [task for task in observer.task_instances(run_id) if task["start_date"]]
    began = {task["task_id"]: datetime.fromisoformat(task["start_date"]).timestamp() - uploaded for task in tasks}
    return champion - uploaded, [(task["task_id"], began[task["task_id"]], task["duration"]) for task in tasks]


def main() -> int:
    """Measures once, on a stack of its own, and shows the table."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.upload", description=__doc__)
    parser.add_argument("--rows", type=int, default=800, help="messages that are made up (%(default)s)")
    rows = parser.parse_args().rows
    with fresh(REPOSITORY / ".local" / "bench-upload", {}, console) as stack:
        load = os.getloadavg()[0]
        seconds, tasks = upload(stack, rows)
    table = Table("task", "begins after (s)", "takes (s)")
    for name, began, took in tasks:
        table.add_row(name, f"{began:.1f}", f"{took:.1f}")
    console.print(table)
    console.print(f"{rows} rows: champion {seconds:.1f} s after the upload. Load average before it: {load:.1f}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
