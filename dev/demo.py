"""The main job, end to end: seven files are uploaded as a user would, and each story is checked where it ends.

The pipeline's word is not enough: rows are counted from the uploaded files, the champion is MLflow's word, rejected
rows are read from quarantine, decisions from the ledger.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from dev import sample_data
from dev.containers import AstroProject
from dev.correction import correct
from dev.docker import DockerStack
from dev.observe import Observer
from dev.processes import StartError
from dev.sample_data import Upload
from dev.stack import Stack, fresh
from dev.state import REPOSITORY

RESULT = REPOSITORY / ".local" / "demo.json"

EXPECTED = {
    "good file": "promoted, champion v1",
    "second good file": "promoted or kept out by a gate, on the champion's golden rows",
    "bad rows": "bad rows in quarantine, good ones used, those of an unknown label wait",
    "no table": "quarantined whole, nothing trained",
    "swapped labels": "rejected, champion untouched",
    "shuffled labels": "waits for a person's approval: it would change most golden labels",
    "new label": "admitted, with golden rows of its own",
}


@dataclass
class Outcome:
    """One story's line in demo.json."""

    name: str
    expected: str
    outcome: str
    ok: bool
    run_id: str
    upload_to_run_seconds: float
    upload_to_end_seconds: float


class Demo:
    """Tells the stories on a stack that is up."""

    def __init__(self, stack: Stack | DockerStack, console: Console) -> None:
        self.stack, self.console = stack, console
        self.observer = Observer(stack)
        self.reports: list[dict[str, Any]] = []

    def tell(self, upload: Upload) -> Outcome:
        """Uploads one file, follows its run to the end, and checks how it ended."""
        self.console.print(
            f"\n[bold]{upload.story}[/]  {upload.name}  {upload.rows} rows, {len(upload.content):,} bytes"
        )
        champion = self.observer.champion()
        known = set(self.observer.runs())
        self.stack.s3.put_object(
            Bucket=self.stack.env["BERT_BUCKET"], Key=f"incoming/{upload.name}", Body=upload.content
        )
        uploaded = time.time()
        run_id = self.observer.new_run(known)
        started = datetime.fromisoformat(self.observer.run(run_id)["start_date"]).timestamp()
        self.console.print(f"  {started - uploaded:5.1f} s  claimed; began {run_id}", soft_wrap=True)
        self._follow(run_id, started)
        report = self.observer.report(run_id)
        ended = datetime.fromisoformat(self.observer.run(run_id)["end_date"]).timestamp()
        self.reports.append(report)
        self.console.print(f"  {report['reason']}", markup=False, soft_wrap=True)
        problems = self._problems(upload, report, champion)
        for problem in problems:
            self.console.print(f"  [bold red]not as expected:[/] {problem}")
        return Outcome(
            upload.story,
            EXPECTED[upload.story],
            "; ".join([_shown(report), *problems]),
            not problems,
            run_id,
            round(started - uploaded, 1),
            round(ended - uploaded, 1),
        )

    def _follow(self, run_id: str, started: float) -> None:
        """Shows each task as it ends and training as it goes, until the run is over."""
        with self.console.status("waiting for the first task") as status:
            for event in self.observer.follow(run_id):
                if event.passing:
                    status.update(event.text)
                else:
                    self.console.print(f"  {time.time() - started:5.0f} s  {event.text}", markup=False, soft_wrap=True)

    def _problems(self, upload: Upload, report: dict[str, Any], before: str | None) -> list[str]:
        """What is not as the story should end; empty if it ended well."""
        found = list(self._account_problems(upload, report))
        champion, outcome = self.observer.champion(), report["outcome"]
        decision = self.observer.last_decision()
        if report["state"] != "success":
            found.append(f"the run ended as {report['state']}")
        match upload.story:
            case "good file":
                _expect(found, outcome == "promoted" and champion == "1", f"{outcome}, champion {champion}")
                _expect(found, decision == ("promote", "1"), f"the ledger says {decision}")
            case "second good file" | "bad rows":
                _expect(found, outcome in ("promoted", "rejected"), outcome)
                kept = before if outcome == "rejected" else report.get("model_version")
                _expect(found, champion == kept, f"{outcome}, but the champion is {champion}")
                names = {gate["name"] for gate in report.get("gates", [])}
                _expect(found, "non_inferiority" in names, "the challenger was not compared with the champion")
                verb = "promote" if outcome == "promoted" else "reject"
                _expect(found, decision == (verb, report.get("model_version")), f"the ledger says {decision}")
                waiting = report["rows"]["waiting"]
                _expect(found, waiting == upload.waiting, f"{waiting} rows wait, not {upload.waiting}")
            case "new label":
                _expect(found, outcome == "promoted", outcome)
                _expect(found, report["rows"]["used"] == upload.rows, f"{report['rows']['used']} rows are used")
                judged = self.observer.judged_labels(report["run_id"])
                _expect(found, upload.labels <= judged, f"of {upload.labels} only {judged & upload.labels} were judged")
            case "no table":
                _expect(found, outcome == "nothing_to_train", outcome)
                _expect(found, champion == before, f"the champion is {champion}")
                _expect(
                    found, self.observer.quarantined_file(upload) == upload.content, "the file is not in quarantine"
                )
            case "shuffled labels":
                _expect(found, outcome == "waiting_for_approval", outcome)
                _expect(found, champion == before, f"the champion is {champion}")
            case "swapped labels":
                _expect(found, outcome == "rejected", outcome)
                _expect(found, champion == before, f"the champion is {champion}")
                _expect(found, decision == ("reject", report.get("model_version")), f"the ledger says {decision}")
        return found

    def _account_problems(self, upload: Upload, report: dict[str, Any]) -> Iterator[str]:
        """Whether every row that came in is somewhere, and every spoilt one in quarantine under its rule."""
        rows = report["rows"]
        if upload.rows != rows["used"] + rows["rejected"] + rows["waiting"]:
            yield f"{upload.rows} rows were uploaded, and {rows} are accounted for"
        by_rule = report["files"][0]["by_rule"] if report["files"] else {}
        for rule, number in upload.spoilt.items():
            if by_rule.get(rule, 0) < number:
                yield f"{number} rows break {rule}, and {by_rule.get(rule, 0)} were found"
        rejected = self.observer.rejected_rows(report)
        readable = rows["rejected"] - by_rule.get("unreadable_file", 0)
        if len(rejected) != readable or not all(rejected["reason"]):
            yield f"{readable} rows were rejected, and {len(rejected)} are in quarantine with a reason"


def run(stack: Stack | DockerStack, uploads: list[Upload], console: Console) -> dict[str, Any]:
    """Tells all stories on a stack that is up; returns what demo.json holds, but for seconds and test."""
    demo = Demo(stack, console)
    outcomes = [demo.tell(upload) for upload in uploads]
    total = {part: sum(report["rows"][part] for report in demo.reports) for part in ("used", "rejected", "waiting")}
    counted = sum(upload.rows for upload in uploads)
    return {
        "ok": all(outcome.ok for outcome in outcomes) and counted == sum(total.values()),
        "stories": [asdict(outcome) for outcome in outcomes],
        "rows": {"in": counted, **total},
        "champion": demo.observer.champion_facts(),
    }


def demo(
    state: Path,
    console: Console,
    *,
    data: Path | None = None,
    test: Path | None = None,
    text: str = "",
    label: str = "",
    docker: AstroProject | None = None,
    stories: int = 7,
) -> int:
    """Runs the demo on a fresh stack, or on the one of ``docker``, and writes demo.json; returns the exit code.

    The Docker stack must be a fresh one too: the stories tell how the first champion comes to be.
    """
    rows = sample_data.labelled_file(data, text, label) if data else sample_data.messages(sample_data.MADE_UP_ROWS)
    uploads = sample_data.uploads(rows, text, label)[:stories]
    tests = sample_data.labelled_file(test, text, label) if test else None
    overrides = {"BERT_TEXT_COLUMN": text, "BERT_LABEL_COLUMN": label}
    begun = time.monotonic()
    given = {name: value for name, value in overrides.items() if value}
    with _docker_stack(docker) if docker else fresh(state, given, console) as stack:
        console.print(f"The console: {stack.airflow_url}/console/ (admin/admin)", soft_wrap=True)
        console.print(f"The stack is up after {time.monotonic() - begun:.0f} s: Airflow {stack.airflow_url}")
        result = run(stack, uploads, console)
        if isinstance(stack, Stack) and stories == len(EXPECTED):  # the Docker stack has no server unless asked for
            told = correct(stack, console)
            result["correction"] = asdict(told)
            result["ok"] = result["ok"] and told.ok
            for problem in told.problems:
                console.print(f"  [bold red]not as expected:[/] {problem}")
        if tests is not None:
            result["test"] = Observer(stack).score_champion(tests)
    result = {"ok": result.pop("ok"), "seconds": round(time.monotonic() - begun, 1), **result}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False))
    afterwards = "the stack is still up" if docker else "`make up STACK=demo` opens this stack again"
    _print_result(result, afterwards, console)
    return 0 if result["ok"] else 1


@contextmanager
def _docker_stack(project: AstroProject) -> Iterator[DockerStack]:
    """The stack of `astro dev start`, left running. Raises StartError if it is not up, or has a champion already."""
    stack = DockerStack(project.airflow_port())
    try:
        stack.provide_base_model()
    except httpx.HTTPError as error:
        raise StartError(
            f"Airflow does not answer at {stack.airflow_url} ({error}); start it: astro dev start"
        ) from error
    if Observer(stack).champion():
        raise StartError("this stack has a champion already; the demo needs a fresh one: astro dev kill, then start")
    yield stack


def _expect(found: list[str], condition: bool, problem: str) -> None:
    if not condition:
        found.append(problem)


def _shown(report: dict[str, Any]) -> str:
    """A run's end in a few words, with the gates' numbers."""
    gates = [
        f"{gate['name']} {gate['value']:.3f} {'≥' if gate['passed'] else '<'} {gate['threshold']:.3f}"
        for gate in report.get("gates", [])
    ]
    version = f" v{report['model_version']}" if report.get("model_version") else ""
    rows = report["rows"]
    counts = [f"{rows[part]} {part}" for part in ("used", "rejected", "waiting") if rows[part] or part != "waiting"]
    return ", ".join([report["outcome"] + version, *counts, *gates])


def _print_result(result: dict[str, Any], afterwards: str, console: Console) -> None:
    table = Table("story", "outcome", "upload → run", "upload → end", "")
    for story in result["stories"]:
        mark = "[green]ok[/]" if story["ok"] else "[bold red]NOT OK[/]"
        seconds = (f"{story[f'upload_to_{moment}_seconds']:.1f} s" for moment in ("run", "end"))
        table.add_row(story["name"], story["outcome"], *seconds, mark)
    console.print()
    console.print(table)
    rows, champion = result["rows"], result["champion"]
    console.print(
        f"{rows['in']} rows came in (a file that is no table counts as one): {rows['used']} used, "
        f"{rows['rejected']} rejected, {rows['waiting']} waiting."
    )
    if champion:
        console.print(
            f"Champion: version {champion['version']}, {champion['accuracy']:.3f} accuracy and "
            f"{champion['macro_f1']:.3f} macro-F1 on its golden set."
        )
    if "test" in result:
        test = result["test"]
        console.print(
            f"On the test file: {test['accuracy']:.4f} accuracy, {test['macro_f1']:.4f} macro-F1, {test['rows']} rows."
        )
    console.print(f"{'All ended as they should' if result['ok'] else 'Not all ended as they should'}, "
                  f"after {result['seconds'] / 60:.1f} minutes. See {RESULT.relative_to(REPOSITORY)}; {afterwards}.",
                  style="bold")  # fmt: skip
