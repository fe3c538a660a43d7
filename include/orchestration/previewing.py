"""What would become of a file: the pipeline's own intake, looked at before anything is uploaded.

It is read as the next run would read it, beside the uploads that wait for that run. Nothing of it counts: rejected rows
of a preview lie in a folder of its own in quarantine/, and no batch, golden row or dataset is touched.
"""
# ruff: noqa: TID253 - only imported inside a task; pandas is what it is about

import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from include import lake, objects
from include.datasets import golden, snapshots
from include.datasets.checks import normalise
from include.datasets.intake import FileAccount, Intake, Plan, Source, sources_at, validate_files
from include.datasets.judging import UNAPPROVED
from include.datasets.rejected import examples, rejected_rows
from include.datasets.rejected_csv import write_csv
from include.orchestration.intake_steps import plan_of
from include.orchestration.outcome import NO_LOSS
from include.settings import settings
from include.uploads import claims, drafts
from include.uploads.drafts import Draft, Preview, Share

MOST_LABELS = 200  # shown of a dataset's


class NoDraft(RuntimeError):
    """There is nothing to look at."""


def preview(run_id: str, draft_id: str) -> Preview:
    """Looks at a draft and keeps what was seen beside it. Raises NoDraft."""
    draft = drafts.read(draft_id)
    if draft is None:
        raise NoDraft(f"there is no draft {draft_id!r}: it may have been deleted (BERT_DRAFTS_DAYS)")
    try:
        mine, others = _sources(draft)
    except FileNotFoundError as error:
        found = Preview(outcome="unreadable", reason=str(error), at=datetime.now(UTC))
    else:
        plan = _apart(plan_of(run_id, [*others, *mine], _params()), draft, len(others))
        intake = validate_files(plan)
        found = _seen(plan, intake, {source.key for source in mine})
        _write_rejected(draft, [file for file in intake.files if file.key in {source.key for source in mine}])
    drafts.write_preview(draft_id, found)
    return found


def _params() -> dict[str, Any]:
    config = settings()
    names = ("text_column", "label_column", "label_mapping")
    return {name: getattr(config, name) for name in names}


def _sources(draft: Draft) -> tuple[list[Source], list[Source]]:
    """The draft's files, and those of uploads that the same run would take. Raises FileNotFoundError."""
    if draft.kind == "address":
        return sources_at(draft.uri), []
    if not objects.exists(draft.uri):
        raise FileNotFoundError(f"{draft.name} is no longer there: upload it again")
    waiting = [
        Source(batch_id=batch.batch_id, key=file.key, uri=file.uri)
        for batch in claims.waiting_batches()
        for file in batch.files
    ]
    return [Source(batch_id=f"draft-{draft.draft_id}", key=draft.key, uri=draft.uri)], waiting


def _apart(plan: Plan, draft: Draft, others: int) -> Plan:
    """The plan with batches of its own, so that what is rejected now lies beside nobody's real upload."""
    names = {source.batch_id: f"draft-{draft.draft_id}-beside-{at}" for at, source in enumerate(plan.sources[:others])}
    mine = f"draft-{draft.draft_id}"

    def renamed(source: Source, name: str) -> Source:
        return source.model_copy(update={"batch_id": name})

    return plan.model_copy(
        update={
            "sources": [renamed(source, names.get(source.batch_id, mine)) for source in plan.sources],
            "newcomers": [renamed(one, names.get(one.batch_id, f"{mine}-{one.batch_id}")) for one in plan.newcomers],
            "approved": [names.get(name, f"{mine}-{name}") for name in plan.approved],
        }
    )


def _seen(plan: Plan, intake: Intake, keys: set[str]) -> Preview:
    mine = [file for file in intake.files if file.key in keys]
    by_rule: Counter[str] = Counter()
    for file in mine:
        by_rule.update(file.by_rule)
    outcome, reason = _outcome(intake, mine)
    facts = _beside_champion(plan, intake, keys) if any(file.used for file in mine) else {}
    return Preview(
        outcome=outcome,
        reason=reason,
        rows_in=sum(file.rows_in for file in mine),
        used=sum(file.used for file in mine),
        rejected=sum(file.rejected for file in mine),
        waiting=sum(file.waiting for file in mine),
        by_rule=dict(by_rule.most_common()),
        examples=examples(mine),
        warnings=[*intake.warnings, *(warning for file in mine for warning in file.warnings)],
        known=sum(by_rule[rule] for rule in NO_LOSS),
        contradicting=by_rule["contradictory_label"],
        beside=[file.key for file in intake.files if file.key not in keys],
        parent_dataset_id=plan.parent_dataset_id,
        at=datetime.now(UTC),
        **facts,
    )


def _outcome(intake: Intake, mine: list[FileAccount]) -> tuple[Any, str]:
    """What a run would do with these files, and why."""
    if mine and all(file.reason for file in mine):
        return "unreadable", "; ".join(file.reason for file in mine)
    if intake.missing:
        return "waits", intake.missing
    if any(UNAPPROVED in file.waits_for for file in mine):
        return "waits_for_approval", "; ".join(warning for file in mine for warning in file.warnings)
    if any(file.used for file in mine):
        return "trains", ""
    if any(file.waiting for file in mine):
        return "waits", "; ".join(warning for file in mine for warning in file.warnings)
    return "nothing_to_train", "none of its rows can be used"


def _beside_champion(plan: Plan, intake: Intake, keys: set[str]) -> dict[str, Any]:
    """What the used rows are to the champion's data."""
    with tempfile.TemporaryDirectory() as folder:
        path = objects.download_file(intake.accepted_uri, Path(folder) / "accepted.parquet")
        rows = pd.read_parquet(path, columns=["text", "label", "source"])
    rows = rows[rows["source"].str.rsplit(" row ", n=1).str[0].isin(keys)]
    rows = rows.assign(key=rows["text"].map(normalise))
    before = _known(plan)
    known = rows["key"].map(before)
    corrected = known.notna() & (known != rows["label"])
    added = Counter(rows["label"])
    left = Counter(known[corrected])
    counts, same = Counter(before.values()), Counter(known[known == rows["label"]])
    after = {one: counts[one] + added[one] - left[one] - same[one] for one in {*counts, *added}}
    shown = sorted(after, key=lambda label: (-after[label], label))[:MOST_LABELS]
    return {
        "new": int(known.isna().sum()),
        "corrected": int(corrected.sum()),
        "new_labels": sorted(set(added) - set(counts)) if counts else [],
        "balance": [Share(label=one, before=counts[one], added=added[one], after=after[one]) for one in shown],
    }


def _known(plan: Plan) -> dict[str, str]:
    """The label of each text that the champion learnt from or is judged by, by its normalised form."""
    golden_set = (golden.read(plan.model_name, plan.golden_number) or golden.nothing()).renamed(plan.label_mapping)
    frames = [golden_set.rows[["text", "label"]]]
    if plan.parent_dataset_id:
        frames.append(golden.rename(snapshots.read(plan.parent_dataset_id), plan.label_mapping)[["text", "label"]])
    rows = pd.concat(frames, ignore_index=True)
    return dict(zip(rows["text"].map(normalise), rows["label"], strict=True))


def _write_rejected(draft: Draft, files: list[FileAccount]) -> None:
    """The rejected rows as a file to mend; none if there are none."""
    if not any(file.rejected and not file.reason for file in files):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rejected.csv"
        with path.open("w", newline="", encoding="utf-8") as target:
            write_csv(rejected_rows(files), target)
        objects.upload_file(path, lake.draft(draft.draft_id, "rejected.csv"))
