"""``make demo-month``: brings a stack up on the month's clock, lives through the month, and says what it has shown."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from dev.month import clock, picture, stories
from dev.month.clock import Clock
from dev.month.people import People
from dev.month.plan import Day, month
from dev.month.runs import Runs
from dev.month.stories import Story
from dev.month.telling import Month, Seen, as_json
from dev.source_servers import PASSWORD, USER, ftp_server
from dev.stack import Stack, fresh
from dev.state import REPOSITORY

RESULT, PICTURE = REPOSITORY / ".local" / "month.json", REPOSITORY / ".local" / "month.png"
SOURCES = [{"name": "desk", "kind": "ftp", "connection": "month_ftp", "path": "/out"}]
SETTINGS = {
    "BERT_EPOCHS": "3",
    "BERT_MAX_LENGTH": "32",
    "BERT_UPLOAD_SETTLE_SECONDS": "0",
    "BERT_WATCH_MINUTES": "0.05",  # real ones: the month's clock stands while a run goes on
    "BERT_DRIFT_COOL_DOWN_DAYS": "3",  # a new champion each week, and a month is short
    "BERT_DRIFT_LEAST_NEW_ROWS": "30",  # of a few hundred that the champion has learnt from
    "BERT_SERVING_LOOK_SECONDS": "0.5",
    "BERT_SERVING_LOG_SECONDS": "0.3",
}
"""Where the month's stack differs from one on a laptop, and why."""


def demo_month(state: Path, console: Console) -> int:
    """Runs the month on a fresh stack, and writes month.json and month.png; returns the exit code."""
    begun = time.monotonic()
    days = month(datetime.now(UTC).date())
    seen: list[Seen] = []
    trouble = ""
    with _stack(state, days, console) as stack, _month(stack, console) as told:
        console.print(f"The stack is up after {time.monotonic() - begun:.0f} s. Logs: {stack.state.logs}/month.log")
        seen = told.days
        try:
            told.live(days)
        except Exception as error:  # what was seen until then is judged and drawn all the same
            trouble = f"{type(error).__name__}: {error}"
            console.print(f"The month ended early: {trouble}", style="bold red", markup=False, soft_wrap=True)
    return conclude(seen, trouble, time.monotonic() - begun, console)


def conclude(
    seen: Sequence[Seen], trouble: str, seconds: float, console: Console, result: Path = RESULT, drawing: Path = PICTURE
) -> int:
    """Judges the days, writes what was found and draws it; 0 if each story is as it should be and nothing broke off."""
    told = stories.judge(seen)
    ok = all(one.ok for one in told) and not trouble
    found = {
        "ok": ok,
        "seconds": round(seconds, 1),
        "trouble": trouble,
        "stories": [asdict(one) for one in told],
        "days": as_json(seen),
        "settings": SETTINGS,
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    if seen:
        picture.draw(seen, drawing)
    _print(told, console)
    end = "All ended as they should" if ok else "Not all ended as they should"
    console.print(f"{end}, after {seconds / 60:.1f} minutes. See {_shown(result)} and {_shown(drawing)}; "
                  "`make up STACK=month` opens this stack again.", style="bold")  # fmt: skip
    return 0 if ok else 1


def _stack(state: Path, days: Sequence[Day], console: Console) -> AbstractContextManager[Stack]:
    """A fresh stack without Airflow's programs, on the month's clock."""
    listed, time_file = state / "sources.yaml", state / "clock"

    def prepare() -> None:
        listed.write_text(yaml.safe_dump({"sources": SOURCES, "quality": {"near_duplicates": False}}))
        Clock(time_file).set(days[0].at(0))

    overrides = SETTINGS | {
        "BERT_SOURCES": str(listed),
        clock.VARIABLE: str(time_file),
        "PYTHONPATH": f"{clock.SITE}{os.pathsep}{REPOSITORY}",
    }
    return fresh(state, overrides, console, prepare=prepare, services_only=True)


@contextmanager
def _month(stack: Stack, console: Console) -> Iterator[Month]:
    """The month on a stack that is up, with the desk's FTP server and the people."""
    folder = stack.state.folder / "ftp"
    (folder / "out").mkdir(parents=True)
    environment = dict(stack.env)
    time_file = Path(environment[clock.VARIABLE])
    with (
        (stack.state.logs / "month.log").open("w") as log,
        ftp_server(folder) as ftp,
        httpx.Client(base_url=stack.serving_url, timeout=120, trust_env=False) as server,
    ):
        login = f"{USER}:{quote(PASSWORD, safe='')}"
        environment["AIRFLOW_CONN_MONTH_FTP"] = f"ftp://{login}@127.0.0.1:{ftp.port}/"
        runs = Runs(environment, time_file, log)
        runs.make_known()
        model = environment.get("BERT_MODEL_NAME", "bert-classifier")
        yield Month(stack, runs, Clock(time_file), People(server, model), ftp, console)


def _print(told: Sequence[Story], console: Console) -> None:
    table = Table("story", "expected", "outcome", "")
    for one in told:
        table.add_row(one.name, one.expected, one.outcome, "[green]ok[/]" if one.ok else "[bold red]NOT OK[/]")
    console.print(table)


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
