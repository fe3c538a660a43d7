"""The pages Train: a file is dropped, seen, trained on once, and its run is shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from airflow import DAG
from airflow.configuration import conf
from airflow.models import DagModel, DagRun, TaskInstance
from airflow.operators.empty import EmptyOperator
from airflow.utils.session import create_session

from include import lake, objects
from include.settings import settings
from include.uploads import claims, drafts, multipart
from plugins.console.access import (
    PIPELINE,
    PREVIEW,
)
from plugins.console.runs import LOG_LINES
from tests.dags.console_app import REJECTED, SCRIPT, Visitor, newest, unfinished, upload

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


def test_a_file_is_dropped_looked_at_and_trained_on_once(console: dict[str, Visitor], model: str) -> None:
    """Also one that is larger than Airflow lets forms be."""
    content = b"text,label\n" + b"a text,card\n" * 200_000
    trainer = console["trainer"]
    answer = upload(trainer, content, "../x/my data.csv")
    assert answer.status_code == 201, answer.text
    draft = drafts.read(answer.json["draft_id"])
    assert draft is not None
    assert (draft.name, draft.by, draft.size) == ("my data.csv", "trainer", len(content))
    assert objects.read_bytes(draft.uri) == content
    assert newest(PREVIEW).conf == {"draft_id": draft.draft_id, "file": "my data.csv"}
    page = f"/console/train/drafts/{draft.draft_id}"
    assert 'aria-busy="true"' in trainer.get(page).text
    assert trainer.json(f"{page}/state") == {"looked_at": False, "looking": "queued", "run": ""}
    assert trainer.post(f"{page}/train").status_code == 409, "before anybody has seen what would become of it"

    seen = drafts.Preview(
        outcome="trains", rows_in=4, used=1, rejected=3, by_rule={"text_empty": 3}, examples=REJECTED,
        balance=[drafts.Share(label=SCRIPT, before=1, added=1, after=2)], at=datetime.now(UTC),
    )  # fmt: skip
    drafts.write_preview(draft.draft_id, seen)
    shown = console["viewer"].get(page).text
    assert "&lt;script&gt;" in shown
    assert "<script>alert" not in shown
    assert 'id="train"' not in shown
    assert 'id="train"' in trainer.get(page).text
    assert console["viewer"].post(f"{page}/train").status_code == 403
    assert not claims.uploads()
    assert [trainer.post(f"{page}/train").status_code for _ in range(2)] == [302, 302]
    assert [one.key for one in claims.uploads()] == [draft.key]
    assert "trainer has started the training." in trainer.get(page).text

    (batch,) = claims.claim_uploads("b-1", sleep=lambda seconds: None)
    assert trainer.json(f"{page}/state")["run"] == ""
    assert claims.take(batch.batch_id, "manual__1")
    assert trainer.json(f"{page}/state")["run"].endswith("run_id=manual__1")
    assert [trainer.post(f"{page}/train").status_code for _ in range(2)] == [302, 302]
    assert not claims.uploads(), "it is used once"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("", b"x", "the file has no name"),
        ("a.csv", b"", "is empty"),
        ("a.csv.part", b"x", "rename it"),
        (".DS_Store", b"x", "rename it"),
        (f"{'a' * 200}.csv", b"x", "shorten it"),
    ],
    ids=["nameless", "empty", "unfinished", "debris", "long"],
)
def test_what_cannot_be_a_file_is_refused_with_a_reason(
    console: dict[str, Visitor], model: str, name: str, content: bytes, words: str
) -> None:
    answer = upload(console["trainer"], content, name)
    assert answer.status_code == 400
    assert words in answer.json["error"]


def test_an_upload_has_a_limit_and_needs_the_pages_token(
    console: dict[str, Visitor], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_CONSOLE_UPLOAD_MIB", "1")
    answer = upload(console["trainer"], b"x" * (1 << 20) + b"x")
    assert answer.status_code == 413
    assert "larger than 1 MiB" in answer.json["error"]
    forged = console["trainer"].client.post(
        "/console/train/files?name=a.csv", data=b"x", headers={"X-CSRFToken": "guessed"}
    )
    assert forged.status_code == 400


def test_a_large_file_is_put_into_the_bucket_by_the_browser_itself(
    console: dict[str, Visitor], model: str, s3_url: str
) -> None:
    """The page may talk to the bucket's server, and to no other; what was cut off is not looked at."""
    page = console["trainer"].get("/console/train/")
    assert page.headers["Content-Security-Policy"].endswith(f"connect-src 'self' {s3_url}")
    form = {"name": "large file.csv", "size": "11"}
    assert console["viewer"].post("/console/train/uploads", form).status_code == 403
    for wrong in ({"size": "0"}, {"size": "many"}, {"name": ".DS_Store"}):
        assert console["trainer"].post("/console/train/uploads", form | wrong).status_code == 400, wrong
    too_large = console["trainer"].post("/console/train/uploads", form | {"size": str(2 << 40)})
    assert too_large.status_code == 413
    place = console["trainer"].post("/console/train/uploads", form).json
    assert place["put"].startswith(s3_url)
    headers = {"Accept": "application/json"}
    assert console["trainer"].post(place["come"], headers=headers).status_code == 409, "it has not come"
    origin = {"Origin": "http://localhost:8080", "Access-Control-Request-Method": "PUT"}
    assert requests.options(place["put"], headers=origin, timeout=30).headers["Access-Control-Allow-Origin"]
    assert requests.put(place["put"], data=b"text,label", timeout=30).ok
    assert console["trainer"].post(place["come"], headers=headers).status_code == 409, "a byte is missing"
    assert requests.put(place["put"], data=b"text,label\n", timeout=30).ok
    answer = console["trainer"].post(place["come"], headers=headers)
    assert answer.status_code == 201, answer.text
    draft = drafts.read(answer.json["draft_id"])
    assert draft is not None
    assert (objects.read_bytes(draft.uri), draft.name, draft.by) == (b"text,label\n", "large file.csv", "trainer")
    assert newest(PREVIEW).conf["draft_id"] == draft.draft_id


def test_a_larger_file_comes_in_parts_and_is_handed_over_in_parts(
    console: dict[str, Visitor], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of S3's smallest size, which is 5 MiB. What was given up leaves nothing behind."""
    monkeypatch.setenv("BERT_CONSOLE_PART_MIB", "5")
    part = 5 << 20
    content = b"text,label\n" + b"a text,card\n" * 1_000_000
    form = {"name": "large.csv", "size": str(len(content))}
    trainer, headers = console["trainer"], {"Accept": "application/json"}
    place = trainer.post("/console/train/uploads", form).json
    assert place["part_bytes"] == part
    parts = [content[at : at + part] for at in range(0, len(content), part)]
    for number in (1, 3):
        address = trainer.json(f"{place['part']}?number={number}")["put"]
        assert requests.put(address, data=parts[number - 1], timeout=30).ok
    assert trainer.post(place["come"], headers=headers).status_code == 409, "a part is missing"
    assert console["admin"].get(f"{place['part']}?number=2").status_code == 404, "it is another's"
    assert trainer.get(f"{place['part']}?number=10001").status_code == 400
    for data in (b"cut off", parts[1]):  # put again
        assert requests.put(trainer.json(f"{place['part']}?number=2")["put"], data=data, timeout=30).ok
    finish = multipart.finish
    # A race, which no two real requests run in the same way each time: another one has just put the parts together.
    monkeypatch.setattr(multipart, "finish", lambda *given: finish(*given) and finish(*given))
    for _ in range(2):
        answer = trainer.post(place["come"], headers=headers)
        assert answer.status_code == 201, answer.text
    draft = drafts.read(answer.json["draft_id"])
    assert draft is not None
    assert objects.read_bytes(draft.uri) == content

    monkeypatch.setattr(multipart, "ONE_COPY_BYTES", part)
    monkeypatch.setattr(multipart, "COPIED_PART_BYTES", part)
    assert drafts.hand_over(draft, "trainer")
    (upload,) = claims.uploads()
    assert objects.read_bytes(f"{lake.root()}/{upload.key}") == content
    assert objects.read_json(lake.draft(draft.draft_id, "uploaded.json"))["etag"] == upload.etag

    gone = trainer.post("/console/train/uploads", form).json
    assert requests.put(trainer.json(f"{gone['part']}?number=1")["put"], data=parts[0], timeout=30).ok
    assert [trainer.post(gone["give_up"]).status_code for _ in range(2)] == [204, 204]
    assert trainer.post(gone["come"], headers=headers).status_code == 409
    assert unfinished() == []


def test_where_the_bucket_is_a_folder_files_pass_the_webserver(
    console: dict[str, Visitor], model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BERT_BUCKET", f"file://{tmp_path}")
    settings.cache_clear()
    page = console["trainer"].get("/console/train/")
    assert "data-direct" not in page.text
    assert page.headers["Content-Security-Policy"].endswith("connect-src 'self'")
    form = {"name": "a.csv", "size": "11"}
    assert console["trainer"].post("/console/train/uploads", form).status_code == 409


def test_files_at_an_address_are_trained_on_where_they_lie_and_once(console: dict[str, Visitor], model: str) -> None:
    trainer = console["trainer"]
    refused = ("my.csv", "s3://bert", lake.incoming("a.csv"), "https://example.com/a.csv")
    assert [trainer.post("/console/train/addresses", {"address": one}).status_code for one in refused] == [400] * 4
    answer = trainer.post("/console/train/addresses", {"address": " s3://other/folder/*.csv "})
    assert answer.status_code == 302
    draft_id = answer.location.rsplit("/", 1)[-1]
    drafts.write_preview(draft_id, drafts.Preview(outcome="trains", used=1, at=datetime.now(UTC)))
    for _ in range(2):
        assert trainer.post(f"/console/train/drafts/{draft_id}/train").status_code == 302
    run = newest(PIPELINE)
    assert (run.run_id, run.conf) == (f"console__{draft_id}", {"dataset_uri": "s3://other/folder/*.csv"})
    assert "run_id=console__" in trainer.json(f"/console/train/drafts/{draft_id}/state")["run"]


def test_a_pause_is_said_and_who_may_ends_it(console: dict[str, Visitor], model: str) -> None:
    DagModel.get_dagmodel(PIPELINE).set_is_paused(is_paused=True)
    assert 'id="paused"' in console["viewer"].get("/console/train/").text
    assert "Unpause" not in console["viewer"].get("/console/train/").text
    assert "Unpause" in console["trainer"].get("/console/train/").text
    assert console["viewer"].post("/console/train/unpause").status_code == 403
    assert console["trainer"].post("/console/train/unpause").status_code == 302
    assert not DagModel.get_dagmodel(PIPELINE).is_paused
    DagModel.get_dagmodel("s3_upload_listener").set_is_paused(is_paused=True)
    assert console["trainer"].post("/console/train/unpause").status_code == 403
    assert console["admin"].post("/console/train/unpause").status_code == 302
    assert 'id="paused"' not in console["viewer"].get("/console/train/").text


def test_a_run_is_shown_with_its_steps_and_its_decision(console: dict[str, Visitor], model: str) -> None:
    console["trainer"].post("/console/train/addresses", {"address": "s3://other/a.csv"})
    run_id = f"manual__{datetime.now(UTC).isoformat()}"
    at = datetime.now(UTC)
    run = DagRun(PIPELINE, run_id, execution_date=at, run_type="manual", data_interval=(at, at), state="running")
    with create_session() as session:
        session.add(run)
    path = f"/console/train/run?run_id={run_id.replace('+', '%2B')}"
    assert console["viewer"].get(path).status_code == 200
    state = console["viewer"].json(path.replace("/run?", "/run/state?"))
    assert (state["state"], state["over"], state["training"]) == ("running", False, {})
    report = {
        "outcome": "promoted", "reason": f"version 3: {SCRIPT}", "golden": {"rows": 40, "accuracy": 0.95},
        "links": {"report": "http://mlflow/report", "other": "javascript:alert(1)"},
        "files": [{"key": f"{SCRIPT}.csv", "batch_id": "b", "rows_in": 4, "used": 3, "rejected": 1, "waiting": 0}],
    }  # fmt: skip
    objects.write_json(lake.report(PIPELINE, run_id, "run.json"), report)
    page = console["viewer"].get(path).text
    assert "95.0 %" in page
    assert "<script>alert" not in page
    assert 'href="javascript:' not in page.split('id="console"')[1]
    assert console["viewer"].get("/console/train/run?dag_id=airflow_db_cleanup&run_id=x").status_code == 404


def test_the_end_of_the_log_of_the_step_that_runs_is_shown(console: dict[str, Visitor], model: str) -> None:
    run_id, at = f"manual__log-{model}", datetime.now(UTC)
    page = {"run_id": run_id}
    run = DagRun(PIPELINE, run_id, execution_date=at, run_type="manual", data_interval=(at, at), state="running")
    with create_session() as session:
        session.add(run)
    assert console["viewer"].get("/console/train/run/log", query_string=page).json == {"step": "", "lines": []}
    with DAG(PIPELINE, start_date=at):
        task = TaskInstance(EmptyOperator(task_id="train_model"), run_id=run_id, state="running")
    task.try_number, task.start_date = 1, at
    with create_session() as session:
        session.add(task)
    log = Path(conf.get("logging", "base_log_folder"), f"dag_id={PIPELINE}", f"run_id={run_id}", "task_id=train_model")
    log.mkdir(parents=True)
    (log / "attempt=1.log").write_text("\n".join(f"step {number} {SCRIPT}" for number in range(100)))
    found = console["viewer"].get("/console/train/run/log", query_string=page).json
    assert (found["step"], len(found["lines"])) == ("Trains", LOG_LINES)
    assert found["lines"][-1] == f"step 99 {SCRIPT}"
