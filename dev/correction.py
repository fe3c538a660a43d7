"""The demo's last story: the champion answers a question, is corrected, and the next model learns from it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console

from dev.observe import OVER, Observer
from dev.stack import Stack

QUESTION = "the parcel that came this morning is not what I had asked you for"
WITHIN_SECONDS = 180.0
COLLECTS = "collect_feedback"


@dataclass(frozen=True)
class Told:
    """The story's end: what was asked, answered and corrected, and the run that took it in."""

    question: str
    answer: str
    version: str
    correction: str
    run_id: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it ended as it should."""
        return not self.problems


def correct(stack: Stack, console: Console) -> Told:
    """Asks the stack's model server, corrects what it says, and follows the correction into training."""
    observer = Observer(stack)
    with httpx.Client(base_url=stack.serving_url, timeout=60, trust_env=False) as server:
        champion = observer.champion()
        _wait(lambda: server.get("/ready").json()["models"][observer.model]["version"] == champion)
        said = server.post("/predict", json={"texts": [QUESTION]}).raise_for_status().json()
        answer = said["predictions"][0]
        labels = server.get(f"/v2/models/{observer.model}").raise_for_status().json()["parameters"]["labels"]
        other = next(label for label in labels if label != answer["label"])
        console.print(
            f"\n[bold]correction[/]  {QUESTION!r}: version {said['version']} says {answer['label']!r} "
            f"({answer['probability']:.2f}), a person says {other!r}",
            soft_wrap=True,
        )
        given = {"prediction_id": answer["id"], "label": other, "who": "demo"}
        server.post("/feedback", json=given).raise_for_status()
    time.sleep(2)  # the log is written once a second
    known = set(observer.runs())
    _collect(stack)
    run_id = observer.new_run(known)
    for event in observer.follow(run_id):
        if not event.passing:
            console.print(f"  {event.text}", markup=False, soft_wrap=True)
    report = observer.report(run_id)
    console.print(f"  {report['reason']}", markup=False, soft_wrap=True)
    problems = tuple(_problems(report))
    return Told(QUESTION, answer["label"], said["version"], other, run_id, problems)


def _problems(report: dict[str, Any]) -> Iterator[str]:
    if report["outcome"] not in ("promoted", "rejected"):
        yield f"the correction's run ended as {report['outcome']}"
    keys = [file["key"] for file in report["files"]]
    if report["rows"]["used"] != 1 or not any(key.startswith("incoming/feedback/") for key in keys):
        yield f"one correction was to be used, and {report['rows']} of {keys} are accounted for"


def _collect(stack: Stack) -> None:
    """Has today's corrections collected, which otherwise happens at night."""
    with stack.airflow as airflow:
        url = f"/dags/{COLLECTS}/dagRuns"
        run = airflow.post(url, json={"conf": {"today": True}}).raise_for_status().json()["dag_run_id"]
        _wait(lambda: airflow.get(f"{url}/{run}").raise_for_status().json()["state"] in OVER)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {WITHIN_SECONDS:.0f} s; see `make logs`")
        time.sleep(0.5)
