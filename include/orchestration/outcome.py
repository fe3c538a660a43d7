"""How a training run ended: ``run.json`` among its reports, for programs, and its note, for people."""

import logging
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.stats import Stats
from sqlalchemy.exc import NoResultFound

from include import alerts, lake, objects
from include.alerts import Alert
from include.datasets.intake import FileAccount, Intake, Plan
from include.evaluation.words import without_outcome
from include.markdown import plain
from include.orchestration.notes import NOTE_LIMIT, set_note

logger = logging.getLogger(__name__)

UNTRAINED = ("waiting_for_more_data", "waiting_for_approval", "nothing_to_train")
OVERWRITTEN = ("run_id", "outcome", "reason", "rows", "files", "warnings", "parent_dataset_id", "links")
NO_LOSS = ("already_known", "in_golden_set", "duplicate")  # the row is there already
LONGEST_REASON = 700  # characters of it that a note shows
LONGEST_LINE = 300


def conclude(
    dag_id: str,
    plan: Plan,
    intake: Intake,
    outcome: str,
    reason: str,
    links: dict[str, str] | None = None,
    **facts: Any,
) -> str:
    """Writes a run's outcome, and counts it among Airflow's metrics; returns the URI of run.json.

    ``outcome`` is promoted, rejected, awaiting_approval, superseded, unchanged (the job's model is the champion
    already), or one of ``UNTRAINED``, which get a report here, since nothing was evaluated. ``links`` are shown in the
    note; ``facts`` (gates, versions, ids) go into run.json as they are.
    """
    if outcome in UNTRAINED:
        links = _report(dag_id, plan, intake, outcome, reason) | (links or {})
    report = {
        "run_id": plan.run_id,
        "outcome": outcome,
        "reason": reason,
        "batches": sorted({source.batch_id for source in plan.sources}),
        "rows": intake.rows,
        "files": [file.model_dump() for file in intake.files],
        "warnings": intake.warnings,
        "parent_dataset_id": plan.parent_dataset_id,
        "links": links or {},
        **facts,
    }
    uri = lake.report(dag_id, plan.run_id, "run.json")
    if not objects.exists(uri):  # else a task is repeated, or another outcome is written
        _count(intake, facts)
    objects.write_json(uri, report)
    set_note(dag_id, plan.run_id, note(intake, outcome, reason, links or {}))
    Stats.incr(f"training_outcome.{outcome}")
    if outcome == "waiting_for_approval":
        _ask(dag_id, plan, reason, uri)
    return uri


def _count(intake: Intake, facts: dict[str, Any]) -> None:
    """What a run took in, and how long it trained."""
    Stats.incr("rows_in", intake.rows["in"])
    Stats.incr("rows_rejected", intake.rows["rejected"])
    if seconds := facts.get("seconds", {}).get("training"):
        Stats.timing("model_training", timedelta(seconds=seconds))


def _ask(dag_id: str, plan: Plan, reason: str, uri: str) -> None:
    """Tells people of an upload that waits for one of them."""
    alert = Alert(
        kind="approval",
        key=f"{dag_id} {plan.run_id} waits",
        title=f"{plan.model_name}: an upload waits for a person",
        text=reason,
        links={"report": uri.replace("run.json", "report.html"), "run": f"airflow:{dag_id}/{plan.run_id}"},
    )
    alerts.raise_alert(alert, plan.model_name)


def conclude_again(dag_id: str, plan: Plan, intake: Intake, outcome: str, reason: str, **facts: Any) -> str:
    """Writes another outcome of a run that had ended, as when a person has decided; the rest of run.json stays.

    A run that was deleted in Airflow has no note any more, and is concluded all the same.
    """
    before = of_run(dag_id, plan.run_id)
    kept = {name: value for name, value in before.items() if name not in OVERWRITTEN}
    try:
        return conclude(dag_id, plan, intake, outcome, reason, before.get("links"), **(kept | facts))
    except NoResultFound:
        logger.warning("the run %s is gone in Airflow; that it was %s stands in its run.json", plan.run_id, outcome)
        return lake.report(dag_id, plan.run_id, "run.json")


def of_run(dag_id: str, run_id: str) -> dict[str, Any]:
    """The content of a run's run.json; empty if the run has not ended."""
    uri = lake.report(dag_id, run_id, "run.json")
    return objects.read_json(uri) if objects.exists(uri) else {}


def note(intake: Intake, outcome: str, reason: str, links: dict[str, str]) -> str:
    """A run's note: how it ended, a line per file and per warning, and links; losses first, as far as there is room."""
    head = f"**{outcome.replace('_', ' ')}** — {_cut(plain(without_outcome(reason)), LONGEST_REASON)}"
    tail = " · ".join(
        f"[{name}]({url})" if url.startswith("http") else f"{name}: {plain(url)}" for name, url in links.items()
    )
    lossy, whole = _split(intake.files)
    warnings = [*intake.warnings, *(f"{_name(file)}: {warning}" for file in intake.files for warning in file.warnings)]
    lines = [("file", line) for line in _file_lines(lossy)]
    lines += [("warning", f"- ⚠ {_cut(plain(warning), LONGEST_LINE)}") for warning in warnings]
    lines += [("file", line) for line in _file_lines(whole)]
    if not intake.files and outcome not in UNTRAINED:
        lines = [("file", "- no new file: trained on the rows that the champion was trained on"), *lines]
    room = NOTE_LIMIT - len(head) - len(tail) - len("\n\n") * 2
    return "\n\n".join(part for part in (head, _fitting(lines, room), tail) if part)


def _split(files: list[FileAccount]) -> tuple[list[FileAccount], list[FileAccount]]:
    """The files that lost something, the greatest losses first, and the others."""

    def loss(file: FileAccount) -> tuple[bool, int, int]:
        there = sum(file.by_rule.get(rule, 0) for rule in NO_LOSS)
        return not file.reason, there - file.rejected, -file.rejected

    lossy = sorted((file for file in files if file.rejected), key=loss)
    return lossy, [file for file in files if not file.rejected]


def _file_lines(files: list[FileAccount]) -> list[str]:
    """A line per file; where rejected rows lie is said once for all files of which they lie there."""
    lines, said = [], set()
    for file in files:
        where = "" if file.quarantine is None or file.quarantine in said else f" → {plain(file.quarantine)}"
        said.add(file.quarantine)
        lines.append(f"- {_file_line(file)}{where}")
    return lines


def _file_line(file: FileAccount) -> str:
    if file.reason:
        return f"{plain(_name(file))} cannot be read: {_cut(plain(file.reason), LONGEST_LINE)}"
    parts = [f"{file.used} used"] if file.used or not file.waiting else []
    parts += [f"{file.waiting} waiting"] if file.waiting else []
    rules = ", ".join(f"{n} {plain(rule)}" for rule, n in sorted(file.by_rule.items(), key=lambda one: -one[1]))
    parts += [f"{file.rejected} rejected ({rules})"] if file.rejected else []
    return f"{plain(_name(file))}: {file.rows_in} row{'' if file.rows_in == 1 else 's'}, {', '.join(parts)}"


def _name(file: FileAccount) -> str:
    return _cut(file.key.removeprefix("incoming/"), 80)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip(chr(92))}…"  # no escape without its character


def _fitting(lines: list[tuple[str, str]], room: int) -> str:
    """Keeps the lines that there is room for, and says how many are left out; one stays, shortened if need be."""
    for count in range(len(lines), 0, -1):
        left_out = [kind for kind, _ in lines[count:]]
        counts = [(left_out.count(kind), kind) for kind in ("file", "warning")]
        more = " and ".join(f"{n} more {kind}{'' if n == 1 else 's'}" for n, kind in counts if n)
        text = "\n".join([line for _, line in lines[:count]] + ([f"- and {more}: see the report"] if more else []))
        if len(text) <= room:
            return text
    return _cut(lines[0][1], room) if lines else ""


def _report(dag_id: str, plan: Plan, intake: Intake, outcome: str, reason: str) -> dict[str, str]:
    """Writes the report of a run without an evaluation, beside run.json and in MLflow; returns its link.

    Without MLflow the run still ends well: the page lies in the bucket, and a link to it leads nobody astray.
    """
    from include.datasets.rejected import examples
    from include.evaluation.data_report import Rejected, write_data_report
    from include.evaluation.evaluate import ShownFile
    from include.registry import mlflow_runs

    uri = lake.report(dag_id, plan.run_id, "report.html")
    with tempfile.TemporaryDirectory() as folder:
        page = write_data_report(
            Path(folder) / "report.html",
            outcome=outcome,
            reason=reason,
            model_name=plan.model_name,
            run_id=f"{dag_id} {plan.run_id}",
            files=[ShownFile(**file.model_dump(include=set(ShownFile.model_fields))) for file in intake.files],
            warnings=intake.warnings,
            examples=[Rejected(**row) for row in examples(intake.files)],
        )
        objects.upload_file(page, uri)
        try:
            return {"report": mlflow_runs.log_page(plan.model_name, plan.run_id, outcome, page)}
        except Exception:  # whatever keeps MLflow from it, the data was looked at and the run is over
            logger.exception("MLflow does not take the report; it lies at %s", uri)
            return {"report": uri}
