"""What a run found that ended before training, as one HTML file that needs nothing else."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from include.evaluation.evaluate import ShownFile
from include.evaluation.report import environment

LONGEST_CELL = 500  # characters shown of a text

ADVICE = {
    "unreadable_file": "Mend the file as its reason says and upload it again; the same name will do.",
    "text_empty": "Give the row a text, or leave it out.",
    "text_too_long": "Shorten the text, or raise BERT_MAX_TEXT_CHARACTERS.",
    "text_not_a_string": "Write the text as a string, in quotes.",
    "wrong_encoding": "Save the file as UTF-8.",
    "wrong_column_count": "Put texts with commas, quotes or line breaks into quotes, and double the quotes in them.",
    "not_json": "One JSON object per line.",
    "label_missing": "Give the row a label, or leave it out.",
    "label_not_a_value": "Write the label as a string or a number.",
    "label_not_single": "Decide on one label per row.",
    "label_unknown": "Use one of the model's labels, or allow this one by BERT_LABELS.",
    "label_too_rare": "Upload more rows of this label, or allow fewer by BERT_MIN_ROWS_PER_LABEL.",
    "contradictory_label": "Decide which label the text has, and upload it once.",
    "duplicate": "Nothing: the text was there before, and counts once.",
    "already_known": "Nothing: the model knows the row already.",
    "in_golden_set": "Nothing: the row is one that models are tested on.",
}


class Rejected(BaseModel):
    """A rejected row, as quarantine has it."""

    model_config = ConfigDict(frozen=True)

    file: str
    row: int
    text: str | None
    label: str | None
    rule: str
    reason: str


def write_data_report(
    path: Path,
    *,
    outcome: str,
    reason: str,
    model_name: str,
    run_id: str,
    files: Sequence[ShownFile],
    warnings: Sequence[str] = (),
    examples: Iterable[Rejected] = (),
) -> Path:
    """Writes the page; returns its path. Texts and labels are escaped, and the file makes no request to anywhere."""
    counts: Counter[str] = Counter()
    for file in files:
        counts.update(file.by_rule)
    shown = [_short(row) for row in examples]
    page = (
        environment()
        .get_template("data_report.html.jinja")
        .render(
            title=outcome.replace("_", " ").capitalize(),
            reason=reason,
            model_name=model_name,
            run_id=run_id,
            files=files,
            warnings=warnings,
            steps=_steps(outcome, counts, any(file.reason for file in files)),
            rules=[(rule, count, ADVICE.get(rule, "")) for rule, count in counts.most_common()],
            examples=shown,
            more=max(0, sum(counts.values()) - counts["unreadable_file"] - len(shown)),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.encode("utf-8", "backslashreplace"))  # a file's name may hold bytes that are no text
    return path


def _steps(outcome: str, counts: Counter[str], unreadable: bool) -> list[str]:
    mendable = [rule for rule in counts if not ADVICE.get(rule, "").startswith("Nothing") and rule != "unreadable_file"]
    steps = []
    if unreadable:
        steps.append(
            "A file that cannot be read says why below. If its columns have other names, set BERT_TEXT_COLUMN and "
            "BERT_LABEL_COLUMN, or start a run that names them (text_column, label_column). Then upload it again; the "
            "same name will do."
        )
    if mendable:
        steps.append(
            "Rejected rows: make rejected writes them as a CSV file. Mend text and label there, and upload that file."
        )
    if outcome == "waiting_for_approval":
        steps.append(
            "Look at the labels that would change. If the new ones are right, say so: with the command above, or with "
            "the DAG decide_upload. If not, mend the file and upload it again."
        )
    if outcome == "waiting_for_more_data":
        steps.append("Upload more labelled rows. Those that wait are kept, and count with the next upload.")
    return steps or ["Nothing has to be done. The next upload starts the next run."]


def _short(row: Rejected) -> Rejected:
    text, label = (value if value is None or len(value) <= LONGEST_CELL else f"{value[:LONGEST_CELL]}…"
                   for value in (row.text, row.label))  # fmt: skip
    return row.model_copy(update={"text": text, "label": label})
