"""The console's pages on a real webserver, metadata database, bucket and warehouse; DAGs are started and do not run."""

import csv
import io
import json
import re
from http.server import HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from airflow.models import DagModel, Log
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake, objects
from include.markdown import plain, shown
from include.orchestration import batches
from include.registry.smoke import GivenUp
from include.uploads import claims, drafts
from include.uploads.lifecycle import State
from plugins.console.access import (
    DECIDE_CHALLENGER,
    DECIDE_UPLOAD,
    ROLLBACK,
)
from tests.dags.console_app import (
    REJECTED,
    SCRIPT,
    Server,
    Visitor,
    batch,
    enter,
    newest,
    reject,
    told,
    upload,
)

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


def test_without_a_model_and_uploads_the_pages_say_what_to_do(console: dict[str, Visitor], model: str) -> None:
    assert "There is no model yet" in console["trainer"].get("/console/").text
    assert "Nothing was decided yet." in console["viewer"].get("/console/").text
    assert "Nothing was watched" in console["viewer"].get("/console/watch/").text
    assert "You see what is trained" in console["viewer"].get("/console/train/").text


def test_the_model_is_shown_with_every_decision_and_texts_stay_texts(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    objects.write_json(
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


def test_after_a_rollback_the_model_is_shown_as_right_as_it_was_then(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    enter(engine, model, "promote", "1")
    enter(engine, model, "promote", "2", "1", actor="person:ada")
    counts = GivenUp(rows=88, right=85).counts
    enter(engine, model, "rollback", "1", "2", gates=[], facts=counts, actor="dag:model_rollback")
    page = console["viewer"].get("/console/").text
    assert '<p class="big">96.6 %</p>' in page
    assert "the DAG model_rollback" in page
    assert " · ada</p>" in page


def test_a_runs_note_is_shown_without_its_markdown() -> None:
    words = r"a_b _c_ *x* [y] \ <z> console__2"
    assert shown(f"**same**: {plain(words)}") == f"same: {words}"


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
    assert [one["version"] for one in found["versions"]] == ["7", "8"]
    assert found["versions"][1]["top"][1]["label"] == "my card"
    assert "does not answer" in console["viewer"].post(**ask).json["error"]


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
    assert pd.read_csv(io.BytesIO(objects.read_bytes(draft.uri))).to_dict("records") == mended

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
    assert all(found[1].encode() not in objects.read_bytes(uri) for uri in objects.find(lake.token()))
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
