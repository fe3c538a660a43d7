"""The console's pages on a real webserver, metadata database, bucket and warehouse; DAGs are started and do not run."""

import csv
import io
import json
import re
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from airflow.models import DagModel, DagRun, Log
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake
from include.orchestration import batches
from include.registry import ledger
from include.registry.ledger import Entry
from include.uploads import claims, drafts
from include.uploads.lifecycle import State
from plugins.console.access import DECIDE_CHALLENGER, DECIDE_UPLOAD, PIPELINE, PREVIEW, ROLLBACK
from tests.dags.console_app import GATES, REJECTED, SCRIPT, Visitor, batch, enter, reject

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


@pytest.fixture(scope="session")
def mlflow_uri() -> str:
    return "http://127.0.0.1:9"  # nothing here needs it


def newest(dag_id: str) -> DagRun:
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id).order_by(DagRun.id.desc()).first()
        session.expunge_all()
    assert run is not None
    return run


def told(answer: Any) -> str:
    """What a page says that could not do what was asked for."""
    found = re.search(r'id="told">(.*?)</p>', answer.text, re.DOTALL)
    assert found, answer.text
    return found[1]


def test_without_a_model_and_uploads_the_pages_say_what_to_do(console: dict[str, Visitor], model: str) -> None:
    assert "There is no model yet" in console["trainer"].get("/console/").text
    assert "Nothing was decided yet." in console["viewer"].get("/console/").text
    assert "Nothing was watched" in console["viewer"].get("/console/watch/").text
    assert "You see what is trained" in console["viewer"].get("/console/train/").text


def test_the_model_is_shown_with_every_decision_and_texts_stay_texts(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    lake.write_json(
        lake.dataset("d1", "manifest.json"),
        {
            "rows": {"train": 90, "validation": 10},
            "label_counts": {SCRIPT: 60, "card": 40},
            "sources": ["incoming/a.csv"],
        },
    )
    enter(engine, model, "promote", "1", dataset_id="d1")
    enter(engine, model, "reject", "2", "1")
    page = console["viewer"].get("/console/").text
    assert "Version 1" in page
    assert "93.0 %" in page
    assert "100 rows" in page
    assert "failed: class_recall" in page
    assert page.count("&lt;script&gt;alert(") >= 3
    assert "<script>alert" not in page
    assert "roll-back" not in page, "a viewer is not offered what is not his"


def test_decisions_are_shown_page_by_page(console: dict[str, Visitor], model: str, engine: Engine) -> None:
    for version in range(1, 31):
        enter(engine, model, "promote", str(version), str(version - 1) if version > 1 else None)
    first = console["viewer"].get("/console/").text
    older = re.search(r'href="(/console/\?before=\d+)#decisions"', first)
    assert older
    second = console["viewer"].get(older[1]).text
    shown = [re.findall(r"<strong>Version (\d+)</strong>", page) for page in (first, second)]
    assert [int(one) for page in shown for one in page] == list(range(30, 0, -1))


def test_an_administrator_rolls_back_in_his_own_name(console: dict[str, Visitor], model: str, engine: Engine) -> None:
    enter(engine, model, "promote", "1")
    enter(engine, model, "promote", "2", "1")
    assert 'value="1"' in console["admin"].get("/console/").text
    form = {"version": "1", "replaces": "2", "reason": "worse in use"}
    assert console["trainer"].post("/console/roll-back", form).status_code == 403
    assert "Say why" in told(console["admin"].post("/console/roll-back", form | {"reason": " "}))
    assert console["admin"].post("/console/roll-back", form).status_code == 302
    run = newest(ROLLBACK)
    assert run.conf == {"to_version": "1", "replaces": "2", "reason": "worse in use", "name": "admin"}
    with create_session() as session:
        log = session.query(Log).filter_by(event="console.start", dag_id=ROLLBACK).order_by(Log.id.desc()).first()
        assert (log.owner, log.run_id) == ("admin", run.run_id)
    assert "worse" in told(console["admin"].post("/console/roll-back", form | {"version": "worse"}))


def test_what_waits_is_approved_or_rejected_and_then_waits_no_more(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    enter(engine, model, "promote", "1")
    enter(engine, model, "await", "2", "1", dag_run_id="run-2")
    assert 'value="approve"' in console["admin"].get("/console/").text
    assert 'value="approve"' not in console["trainer"].get("/console/").text
    form = {"run_id": "run-2", "decision": "approve", "reason": "looks right"}
    assert console["trainer"].post("/console/decide", form).status_code == 403
    assert console["admin"].post("/console/decide", form | {"decision": "maybe"}).status_code == 400
    assert console["admin"].post("/console/decide", form).status_code == 302
    assert newest(DECIDE_CHALLENGER).conf == form | {"name": "admin"}
    enter(engine, model, "promote", "2", "1", dag_run_id="run-2")
    assert 'id="waits"' not in console["admin"].get("/console/").text


def test_a_paused_dag_is_named(console: dict[str, Visitor], model: str) -> None:
    DagModel.get_dagmodel(ROLLBACK).set_is_paused(is_paused=True)
    try:
        answer = console["admin"].post("/console/roll-back", {"reason": "x"})
        assert answer.status_code == 409
        assert "model_rollback is paused" in told(answer)
    finally:
        DagModel.get_dagmodel(ROLLBACK).set_is_paused(is_paused=False)


class Server(BaseHTTPRequestHandler):
    """What the model server says to our requests."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        top = [{"label": SCRIPT, "probability": 0.9}, {"label": asked["texts"][0], "probability": 0.1}]
        body = json.dumps({"model": "m", "version": "7", "predictions": [{"top": top}]}).encode()
        self.send_response(200 if self.headers["Authorization"] == "Bearer t" else 401)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_sentence_is_answered_by_the_model_server(
    console: dict[str, Visitor], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = {"path": "/console/ask", "data": {"text": "my card"}, "headers": {"Accept": "application/json"}}
    assert "BERT_CONSOLE_SERVING_URL" in console["viewer"].post(**ask).json["error"]
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("BERT_CONSOLE_SERVING_URL", f"http://127.0.0.1:{server.server_port}")
        assert "401" in console["viewer"].post(**ask).json["error"]
        monkeypatch.setenv("CONSOLE_SERVING_TOKEN", "t")
        found = console["viewer"].post(**ask).json
        server.shutdown()
    assert (found["version"], found["top"][1]["label"]) == ("7", "my card")
    assert "does not answer" in console["viewer"].post(**ask).json["error"]


def upload(visitor: Visitor, content: bytes, name: str = "my data.csv") -> Any:
    options = {"content_type": "application/octet-stream", "headers": {"Accept": "application/json"}}
    return visitor.post(f"/console/train/files?name={name}", content, **options)


def test_a_file_is_dropped_looked_at_and_trained_on_once(console: dict[str, Visitor], model: str) -> None:
    """Also one that is larger than Airflow lets forms be."""
    content = b"text,label\n" + b"a text,card\n" * 200_000
    trainer = console["trainer"]
    answer = upload(trainer, content, "../x/my data.csv")
    assert answer.status_code == 201, answer.text
    draft = drafts.read(answer.json["draft_id"])
    assert draft is not None
    assert (draft.name, draft.by, draft.size) == ("my data.csv", "trainer", len(content))
    assert lake.read_bytes(draft.uri) == content
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
    lake.write_json(lake.report(PIPELINE, run_id, "run.json"), report)
    page = console["viewer"].get(path).text
    assert "95.0 %" in page
    assert "<script>alert" not in page
    assert 'href="javascript:' not in page.split('id="console"')[1]
    assert console["viewer"].get("/console/train/run?dag_id=airflow_db_cleanup&run_id=x").status_code == 404


def test_an_upload_is_shown_with_what_became_of_it_and_rejected_rows_are_mended(
    console: dict[str, Visitor], model: str, engine: Engine, tmp_path: Path
) -> None:
    batch_id = batch(model, "b", State.SET_ASIDE)
    batches._write(engine, [batch_id])
    reject(batch_id, REJECTED, tmp_path)
    listed = console["viewer"].get("/console/data/?state=set aside").text
    assert "&lt;script&gt;" in listed
    assert "<script>alert" not in listed
    path = f"/console/data/batches/{batch_id}"
    page = console["admin"].get(path).text
    assert "shown worse" in page
    assert 'value="readmit"' in page
    assert 'value="readmit"' not in console["trainer"].get(path).text

    text = console["viewer"].get(f"{path}/rejected.csv").text
    assert [row["rule"] for row in csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))] == [
        "text_empty",
        "label_unknown",
    ]
    assert console["trainer"].json(f"{path}/rejected") == {"rows": REJECTED, "more": False}
    assert console["trainer"].json(f"{path}/rejected?offset=1")["rows"] == REJECTED[1:]

    assert console["trainer"].post(f"{path}/mended", json={"rows": []}).status_code == 400
    assert console["trainer"].post(f"{path}/mended", json={"rows": [{"text": "a"}]}).status_code == 400
    mended = [{"text": 'my "card",\nlost', "label": "card"}, {"text": SCRIPT, "label": "card"}]
    answer = console["trainer"].post(f"{path}/mended", json={"rows": mended})
    assert answer.status_code == 201, answer.text
    draft = drafts.read(answer.json["page"].rsplit("/", 1)[-1])
    assert draft is not None
    assert pd.read_csv(io.BytesIO(lake.read_bytes(draft.uri))).to_dict("records") == mended

    form = {"run_id": "run-x", "decision": "readmit", "reason": "it was right"}
    assert console["trainer"].post("/console/decide-upload", form).status_code == 403
    assert console["admin"].post("/console/decide-upload", form).status_code == 302
    assert newest(DECIDE_UPLOAD).conf == form | {"name": "admin"}


@pytest.mark.parametrize("path", ["../x", "none", "%2e%2e"], ids=["up", "unknown", "escaped"])
def test_an_upload_that_is_none_is_not_looked_for_in_the_bucket(
    console: dict[str, Visitor], model: str, path: str
) -> None:
    assert console["viewer"].get(f"/console/data/batches/{path}").status_code == 404
    assert console["viewer"].get(f"/console/data/batches/{path}/rejected.csv").status_code == 404
    assert console["viewer"].get(f"/console/train/drafts/{path}").status_code == 404


def test_pages_cost_no_more_with_many_uploads_and_versions(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    """10,000 uploads and 1,000 versions: the requests to the bucket are counted, and no page lists it."""
    batches.BATCHES.create(engine, checkfirst=True)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            "batch_id": f"many-{number:05}-{model}", "state": "used", "because": "", "reason": "", "run_id": "r",
            "files": 1, "bytes": 1, "claimed_at": at, "changed_at": at + timedelta(minutes=number), "moves": 3,
            "tells": 1, "failures": 0,
        }
        for number in range(10_000)
    ]  # fmt: skip
    ledger.ensure(engine)
    entries = [
        Entry(
            model_name=model, verb="promote", version=str(version), previous_champion=str(version - 1), gates=GATES,
            actor="test", reason="x", dag_run_id=f"r{version}",
        )
        for version in range(1, 1_001)
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(sa.insert(batches.BATCHES), rows)
        connection.execute(
            sa.insert(ledger.LEDGER), [one.model_dump() | {"decision_id": one.decision_id} for one in entries]
        )
    try:
        for path in ("/console/", "/console/data/", "/console/data/?page=300", "/console/watch/", "/console/train/"):
            begun = time.process_time()
            assert console["viewer"].get(path).status_code == 200
            spent = time.process_time() - begun
            print(f"{path}: {1000 * spent:.0f} ms of CPU")
    finally:
        with engine.begin() as connection:
            connection.execute(sa.delete(batches.BATCHES).where(batches.BATCHES.c.batch_id.like("many-%")))


def test_what_is_watched_is_shown_and_why_nothing_was_trained(
    console: dict[str, Visitor], model: str, engine: Engine, request: pytest.FixtureRequest
) -> None:
    columns = 'day date, model text, "check" text, value float, threshold float, verdict text, told text'
    found = [
        {"model": model, "check": "drift.score", "value": 0.1, "verdict": "passed", "told": "none"},
        {"model": model, "check": SCRIPT, "value": 0.5, "verdict": "failed", "told": SCRIPT},
    ]
    with engine.begin() as connection:
        was_there = connection.execute(sa.text("SELECT to_regclass('monitoring_results')")).scalar()
        if not was_there:
            connection.execute(sa.text(f"CREATE TABLE monitoring_results ({columns})"))
            request.addfinalizer(lambda: engine.execute("DROP TABLE monitoring_results"))
        values = "(current_date, :model, :check, :value, 0.2, :verdict, :told)"
        connection.execute(sa.text(f"INSERT INTO monitoring_results VALUES {values}"), found)
    page = console["viewer"].get("/console/watch/").text
    assert "these checks complained" in page
    assert "<script>alert" not in page
    enter(engine, model, "drift_decision", "1", facts={"decision": "wait"}, reason="too few new rows")
    assert "Not trained again: too few new rows" in console["viewer"].get("/console/watch/").text


def test_a_database_or_bucket_that_is_away_is_said(
    console: dict[str, Visitor], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plugins.console import warehouse

    away = sa.create_engine("postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setattr(warehouse, "engine", lambda: away)
    answer = console["viewer"].get("/console/")
    assert answer.status_code == 503
    assert "does not answer" in told(answer)


def test_the_pages_speak_the_browsers_language(console: dict[str, Visitor], model: str) -> None:
    page = console["viewer"].get("/console/", headers={"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}).text
    assert '<html lang="de"' in page
    assert "Es gibt noch kein Modell" in page
    assert '<html lang="en"' in console["viewer"].get("/console/", headers={"Accept-Language": "fr"}).text


def test_the_catalogue_has_every_sentence_and_no_other() -> None:
    from plugins.console.runs import STEPS

    folder = Path(__file__).parents[2] / "plugins" / "console"
    said = {*STEPS.values(), *(str(state) for state in State), "not checked"}
    for path in folder.glob("templates/console/*.html"):
        text = path.read_text()
        said |= {one for pair in re.findall(r"\bt\(\"([^\"]+)\"|\bt\('([^']+)'", text) for one in pair if one}
        said |= {one for pair in re.findall(r"\bt\.count\([^\"]*\"([^\"]+)\", \"([^\"]+)\"", text) for one in pair}
    for path in folder.glob("*.py"):
        said |= set(re.findall(r"(?:say|of_request\(\))\(\s*\"([^\"]+)\"", path.read_text()))
    for path in folder.glob("translations/*.json"):
        words = json.loads(path.read_text())
        assert set(words) == said, path.name
        for english, other in words.items():
            assert re.findall(r"\{\w+\}", english).sort() == re.findall(r"\{\w+\}", other).sort(), english
            assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", other)), english


def test_a_token_starts_a_training_and_reads_its_own_state_and_nothing_else(
    console: dict[str, Visitor], model: str, monkeypatch: pytest.MonkeyPatch, site: Any
) -> None:
    assert console["trainer"].get("/console/access/").status_code == 403
    page = console["admin"].post("/console/access/", {"name": "web shop"}).text
    found = re.search(r'id="secret">(bert_[\w-]+)<', page)
    assert found
    assert found[1] not in console["admin"].get("/console/access/").text
    assert all(found[1].encode() not in lake.read_bytes(uri) for uri in lake.find(lake.token()))
    client, bearer = site.test_client(), {"Authorization": f"Bearer {found[1]}"}

    def start(headers: dict[str, str]) -> Any:
        return client.post("/console/api/v1/trainings?name=a.csv", data=b"text,label\na,b\n", headers=headers)

    assert start({}).status_code == 401
    assert start({"Authorization": "Bearer bert_guessed"}).status_code == 401
    answer = start(bearer)
    assert answer.status_code == 202, answer.text
    assert [one.key for one in claims.uploads()] == [f"incoming/console/{answer.json['id']}/a.csv"]
    state = client.get(answer.json["state"], headers=bearer)
    assert (state.status_code, state.json["state"]) == (200, "waiting")
    mine = upload(console["trainer"], b"text,label\n").json["draft_id"]
    assert client.get(f"/console/api/v1/trainings/{mine}", headers=bearer).status_code == 404
    assert client.get("/console/data/", headers=bearer).status_code == 302, "it opens no page"
    assert client.get("/api/v1/dags", headers=bearer).status_code in (401, 403)

    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in client.options("/console/api/v1/trainings", headers=asked).headers
    monkeypatch.setenv("BERT_CONSOLE_ORIGINS", "https://shop.example")
    allowed = client.options("/console/api/v1/trainings", headers=asked).headers
    assert allowed["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Authorization" in allowed["Access-Control-Allow-Headers"]
    other = client.get(answer.json["state"], headers=bearer | {"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers

    revoke = re.search(r'action="(/console/access/[0-9a-f]{64}/revoke)"', console["admin"].get("/console/access/").text)
    assert revoke
    assert console["trainer"].post(revoke[1]).status_code == 403
    assert console["admin"].post(revoke[1]).status_code == 302
    assert start(bearer).status_code == 401
    claims.claim_uploads("b-token", sleep=lambda seconds: None)
