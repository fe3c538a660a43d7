"""What a run says of itself: its note, run.json and the page, with a real metadata database, MLflow store and lake."""

import io
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from airflow.exceptions import AirflowFailException
from airflow.models import DAG, DagRun
from airflow.stats import Stats
from airflow.utils.db import initdb
from airflow.utils.session import create_session

from include import lake, objects
from include.alerts import outbox
from include.datasets.intake import FileAccount, Intake, Plan
from include.markdown import plain
from include.orchestration.notes import NOTE_LIMIT, note_failure
from include.orchestration.outcome import conclude, note
from include.settings import settings

RUN = "manual__2026-01-01T00:00:00+00:00"
LINKS = {"report": "http://m/#/1/report.html", "MLflow run": "http://m/#/1"}
BROKEN = FileAccount(
    key="incoming/b.csv",
    batch_id="1",
    rows_in=1,
    used=0,
    rejected=1,
    by_rule={"unreadable_file": 1},
    quarantine="s3://bert/quarantine/1/files/b.csv",
    reason='no text column among "Betreff", "Team"; name it in BERT_TEXT_COLUMN',
)


def account(key: str, used: int = 0, waiting: int = 0, warnings: Any = (), **rules: int) -> FileAccount:
    rejected = sum(rules.values())
    return FileAccount(
        key=f"incoming/{key}",
        batch_id="1",
        rows_in=used + waiting + rejected,
        used=used,
        waiting=waiting,
        rejected=rejected,
        by_rule=rules,
        quarantine="s3://bert/quarantine/1/rejected.parquet" if rules else None,
        warnings=list(warnings),
    )


def intake(*files: FileAccount, warnings: Any = ()) -> Intake:
    return Intake(files=list(files), accepted_uri="", accepted_rows=0, warnings=list(warnings))


def test_a_note_has_a_line_per_file_and_the_losses_first() -> None:
    files = intake(account("good.csv", used=9), account("bad.csv", used=5, label_missing=1, duplicate=2), BROKEN)
    assert note(files, "promoted", "version 2: Promoted: 9 of 9 golden rows are right.", LINKS).splitlines() == [
        "**promoted** — version 2: 9 of 9 golden rows are right.",
        "",
        '- b.csv cannot be read: no text column among "Betreff", "Team"; name it in BERT_TEXT_COLUMN '
        "→ s3://bert/quarantine/1/files/b.csv",
        "- bad.csv: 8 rows, 5 used, 3 rejected (2 duplicate, 1 label_missing) → s3://bert/quarantine/1/rejected.parquet",
        "- good.csv: 9 rows, 9 used",
        "",
        "[report](http://m/#/1/report.html) · [MLflow run](http://m/#/1)",
    ]


def test_rows_that_are_there_already_are_no_loss_to_be_told_of_first() -> None:
    files = intake(account("a.csv", already_known=9), account("b.csv", used=8, text_empty=1))
    text = note(files, "promoted", "fine", {})
    assert text.index("b.csv") < text.index("a.csv")


def test_warnings_stand_before_the_files_that_lost_nothing() -> None:
    files = intake(account("a.csv", used=9, warnings=["read as Mac Roman"]), warnings=["Login and login look alike"])
    lines = note(files, "rejected", "version 2: Rejected: worse.", LINKS).splitlines()
    assert lines[0] == "**rejected** — version 2: worse."
    assert lines[2:5] == ["- ⚠ Login and login look alike", "- ⚠ a.csv: read as Mac Roman", "- a.csv: 9 rows, 9 used"]


def test_a_note_of_many_files_shows_the_losses_and_counts_the_rest() -> None:
    many = [account(f"{at:03d} {'long name ' * 12}.csv", used=1) for at in range(500)]
    text = note(intake(*many, account("lossy.csv", label_missing=7)), "promoted", "good " * 200, LINKS)
    assert len(text) <= NOTE_LIMIT
    assert text.splitlines()[2].startswith("- lossy.csv: 7 rows, 0 used, 7 rejected")
    assert "more files: see the report\n\n[report](http://m" in text
    one_long = note(intake(BROKEN.model_copy(update={"reason": "x" * 3000})), "rejected", "y" * 3000, LINKS)
    assert len(one_long) <= NOTE_LIMIT
    assert one_long.endswith("(http://m/#/1)")


def test_no_line_contradicts_another() -> None:
    again = note(intake(), "unchanged", "version 1 is the champion already", LINKS)
    assert "0 rows" not in again
    assert "no new file: trained on the rows that the champion was trained on" in again
    assert "file" not in note(intake(), "nothing_to_train", "an earlier run used the upload already", {})
    waiting = note(intake(account("a.csv", waiting=1, label_missing=2)), "waiting_for_more_data", "1 good row", {})
    assert "- a.csv: 3 rows, 1 waiting, 2 rejected (2 label_missing)" in waiting


@pytest.mark.parametrize("hostile", ["[a](http://evil)", "<img src=x>", "**bold** _it_ `code` ~~x~~", "a\n\n# b", "\0"])
def test_names_and_reasons_are_shown_as_they_are(hostile: str) -> None:
    from markdown_it import MarkdownIt

    text = note(intake(account(f"{hostile}.csv", label_missing=1, warnings=[hostile])), "rejected", hostile, {})
    tokens = MarkdownIt("commonmark").enable("strikethrough").parse(text)
    inline = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inline} <= {"text", "text_special", "strong_open", "strong_close", "softbreak"}
    assert sum(child.type == "strong_open" for child in inline) == 1, "the outcome alone"
    assert {token.type for token in tokens} <= {
        f"{name}_{end}" for name in ("paragraph", "bullet_list", "list_item") for end in ("open", "close")
    } | {"inline"}
    shown = "".join(child.content for child in inline)
    assert shown.count(" ".join(hostile.replace("\0", " ").split())) >= 3


def test_settings_and_rules_stay_readable() -> None:
    assert plain("set BERT_TEXT_COLUMN: 2 label_missing") == "set BERT_TEXT_COLUMN: 2 label_missing"
    assert plain("_x_ a__b") == "\\_x\\_ a\\_\\_b"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A DAG run, with a lake in a folder and MLflow's store in another."""
    initdb(load_connections=False)
    monkeypatch.setenv("BERT_BUCKET", f"file://{tmp_path}/lake")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with create_session() as session:
        DAG("pipeline", start_date=at, schedule=None).create_dagrun(
            run_id=RUN, state="running", execution_date=at, data_interval=(at, at), session=session
        )
    yield RUN
    with create_session() as session:
        session.query(DagRun).delete()
    settings.cache_clear()


def note_of(run_id: str) -> str:
    with create_session() as session:
        return str(session.query(DagRun).filter_by(run_id=run_id).one().note)


def waiting_intake() -> Intake:
    rows = pd.DataFrame(
        {
            "file": "incoming/<b>.csv",
            "row": range(1, 41),
            "text": ["<script>alert(1)</script>", *(f"text {at}" for at in range(39))],
            "label": None,
            "rule": "label_missing",
            "reason": "the cell is empty",
        }
    )
    buffer = io.BytesIO()
    rows.to_parquet(buffer)
    uri = objects.write_bytes(lake.quarantine("1", "rejected.parquet"), buffer.getvalue())
    file = account("<b>.csv", waiting=1, label_missing=40).model_copy(update={"quarantine": uri})
    return intake(file, BROKEN, warnings=["over a fifth of <b>.csv is rejected"])


def end(run: str, files: Intake) -> str:
    plan = Plan(run_id=run, model_name="m", sources=[], parent_dataset_id=None)
    return conclude("pipeline", plan, files, "waiting_for_more_data", "1 good row so far, and 200 are needed")


def test_a_run_that_ends_early_has_a_report_that_says_why(run: str) -> None:
    uri = end(run, waiting_intake())
    report = objects.read_json(uri)
    assert report["warnings"] == ["over a fifth of <b>.csv is rejected"]
    page = objects.read_bytes(lake.report("pipeline", run, "report.html")).decode()
    for words in (
        "Waiting for more data",
        "1 good row so far, and 200 are needed",
        "label missing",
        "the cell is empty",
    ):
        assert words in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page
    assert "<b>" not in page
    assert "35 more lie in quarantine" in page
    assert "make rejected" in page
    assert "no text column among &#34;Betreff&#34;, &#34;Team&#34;" in page
    assert "<link" not in page
    assert "src=" not in page
    link = report["links"]["report"]
    assert f"report: {link}" in note_of(run), "a store that is no server has no address to link"
    end(run, waiting_intake())
    assert objects.read_json(uri)["links"]["report"] == link, "a run that is repeated has one report"


def test_a_page_of_corrections_that_wait_says_how_to_approve_them(run: str) -> None:
    plan = Plan(run_id=run, model_name="m", sources=[], parent_dataset_id=None)
    conclude("pipeline", plan, intake(account("a.csv", waiting=9)), "waiting_for_approval", "make readmit APPROVE=1")
    page = objects.read_bytes(lake.report("pipeline", run, "report.html")).decode()
    assert "If the new ones are right, say so: with the command above, or with the DAG decide_upload" in page
    assert "Nothing has to be done" not in page
    (told,) = outbox.unsent("m")
    assert (told.alert.kind, told.alert.title) == ("approval", "m: an upload waits for a person")
    assert told.alert.links["report"] == lake.report("pipeline", run, "report.html")


def test_rows_and_training_are_counted_once_however_often_a_run_is_concluded(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, Any]] = []
    monkeypatch.setattr(Stats, "incr", lambda name, count=1: counted.append((name, count)))
    monkeypatch.setattr(Stats, "timing", lambda name, taken: counted.append((name, taken)))
    plan = Plan(run_id=run, model_name="m", sources=[], parent_dataset_id=None)
    for outcome in ("awaiting_approval", "promoted"):
        conclude("pipeline", plan, intake(account("a.csv", used=9, duplicate=1)), outcome, "", seconds={"training": 90})
    assert [one for one in counted if not one[0].startswith("training_outcome")] == [
        ("rows_in", 10),
        ("rows_rejected", 1),
        ("model_training", timedelta(seconds=90)),
    ]


def test_without_mlflow_a_run_that_ends_early_still_ends_well(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    settings.cache_clear()
    report = objects.read_json(end(run, waiting_intake()))
    assert report["links"]["report"].endswith("/report.html")
    assert "report: file://" in note_of(run)


def test_a_note_is_set_also_by_a_command_that_is_none_of_airflows(run: str) -> None:
    code = f"from include.orchestration.notes import set_note; set_note('pipeline', {run!r}, 'approved')"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=120)
    assert note_of(run) == "approved"


def test_a_failure_says_what_to_do_without_the_name_of_a_class(run: str) -> None:
    class Task:
        task_id, try_number = "wait_for_data", 1

    def fail(error: Exception) -> str:
        with create_session() as session:
            found = session.query(DagRun).filter_by(run_id=run).one()
        note_failure({"task_instance": Task, "dag_run": found, "exception": error})
        return note_of(run)

    assert fail(AirflowFailException("nothing lay at s3://b/[1].csv")) == (
        "**wait_for_data failed** (try 1): nothing lay at s3://b/\\[1\\].csv"
    )
    assert fail(KeyError("x")) == "**wait_for_data failed** (try 1): KeyError: 'x'"
