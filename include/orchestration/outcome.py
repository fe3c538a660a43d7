"""How a training run ended: ``run.json`` among its reports, for programs, and its note, for people."""

from typing import Any

from airflow.stats import Stats

from include import lake
from include.datasets.intake import Intake, Plan
from include.orchestration.notes import NOTE_LIMIT, set_note


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

    ``outcome`` is promoted, rejected, unchanged (the job's model is the champion already), nothing_to_train or
    waiting_for_more_data. ``links`` are shown in the note;
    ``facts`` (gates, versions, ids) go into run.json as they are.
    """
    report = {
        "run_id": plan.run_id,
        "outcome": outcome,
        "reason": reason,
        "batches": sorted({source.batch_id for source in plan.sources}),
        "rows": intake.rows,
        "files": [file.model_dump() for file in intake.files],
        "parent_dataset_id": plan.parent_dataset_id,
        "links": links or {},
        **facts,
    }
    uri = lake.write_json(lake.report(dag_id, plan.run_id, "run.json"), report)
    set_note(dag_id, plan.run_id, _note(intake, outcome, reason, links or {}))
    Stats.incr(f"training_outcome.{outcome}")
    return uri


def _note(intake: Intake, outcome: str, reason: str, links: dict[str, str]) -> str:
    rows = intake.rows
    counts = f"{rows['in']} rows in {len(intake.files)} file(s): {rows['used']} used, {rows['rejected']} rejected"
    waiting = f", {rows['waiting']} waiting" if rows["waiting"] else ""
    shown = " · ".join(f"[{name}]({url})" for name, url in links.items())
    head, tail = f"**{outcome.replace('_', ' ')}** — ", f"\n\n{counts}{waiting}\n\n{shown}".rstrip()
    room = NOTE_LIMIT - len(head) - len(tail)  # of a long reason the end can go, the links cannot
    return head + (reason if len(reason) <= room else f"{reason[: room - 1]}…") + tail
