"""The pages of labels: admitting, merging, and texts that are labelled on the spot."""

import io
from http.server import HTTPServer
from threading import Thread

import pandas as pd
import pytest
from sqlalchemy.engine import Engine

from include import objects
from include.datasets.names import is_feedback
from include.uploads import drafts
from plugins.console.access import (
    DECIDE_LABELS,
    PREVIEW,
)
from tests.dags.console_app import (
    SCRIPT,
    Server,
    Visitor,
    enter,
    learnt,
    newest,
    worth,
)

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


def test_an_administrator_admits_and_merges_labels_in_his_own_name(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    learnt(model, engine)
    page = console["admin"].get("/console/labels/").text
    assert 'value="merge"' in page
    assert "&lt;script&gt;" in page
    assert 'value="merge"' not in console["trainer"].get("/console/labels/").text
    assert console["viewer"].json("/console/labels/waiting") == {"labels": {}}
    form = {"decision": "merge", "label": "cards", "into": "card", "reason": "the same", "train": "on"}
    assert console["trainer"].post("/console/labels/decide", form).status_code == 403
    for wrong in ({"label": ""}, {"into": " "}, {"decision": "drop"}, {"reason": ""}):
        assert console["admin"].post("/console/labels/decide", form | wrong).status_code == 400, wrong
    assert console["admin"].post("/console/labels/decide", form).status_code == 302
    assert newest(DECIDE_LABELS).conf == form | {"name": "admin", "train": True}
    assert (
        console["admin"]
        .post("/console/labels/decide", {"decision": "admit", "label": "parcel", "reason": "new"})
        .status_code
        == 302
    )
    assert newest(DECIDE_LABELS).conf == {
        "decision": "admit",
        "label": "parcel",
        "name": "admin",
        "reason": "new",
        "train": False,
    }
    enter(engine, model, "merge_label", "1", actor="person:admin", facts={"label": "cards", "into": "card"})
    assert "cards → card" in console["viewer"].get("/console/labels/").text


def test_texts_worth_labelling_are_labelled_on_the_spot_and_become_an_upload_that_never_judges(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    learnt(model, engine)
    trainer, texts = console["trainer"], "/console/labels/next/texts"
    assert console["viewer"].get("/console/labels/next").status_code == 403
    assert trainer.json(texts) == {"origin": "", "texts": [], "labels": ["card", SCRIPT]}
    worth(model, "unsure/2026-11-21.csv")
    assert trainer.json(texts)["origin"] == "unsure-2026-11-21"
    worth(model, "to_label/2026-11-20.csv")
    found = trainer.json(texts)
    assert found["origin"] == "drift-2026-11-20", "what is new after a drift comes first"
    assert found["texts"][0] == {
        "id": "20261120-0",
        "text": f"a text 0 {SCRIPT}",
        "predicted": "card",
        "probability": 0.4,
    }

    send = "/console/labels/next/labelled"
    assert trainer.post(send, json={"origin": "x", "rows": []}).status_code == 400
    assert trainer.post(send, json={"origin": "x", "rows": [{"text": "a", "label": "card"}]}).status_code == 400
    assert trainer.post(send, json={"rows": [{"id": "1", "text": "a", "label": "card"}]}).status_code == 400
    rows = [{"id": one["id"], "text": one["text"], "label": "card"} for one in found["texts"][:2]]
    answer = trainer.post(send, json={"origin": found["origin"], "rows": rows})
    assert answer.status_code == 201, answer.text
    draft = drafts.read(answer.json["page"].rsplit("/", 1)[-1])
    assert draft is not None
    assert draft.key == f"incoming/feedback/console/{draft.draft_id}/labelled-drift-2026-11-20.csv"
    assert is_feedback(draft.key)
    assert len(pd.read_csv(io.BytesIO(objects.read_bytes(draft.uri)))) == 2
    assert newest(PREVIEW).conf["draft_id"] == draft.draft_id
    assert [one["id"] for one in trainer.json(texts)["texts"]] == ["20261120-2"], "what has a label is not asked for"


def test_texts_at_random_are_labelled_for_the_model_server(
    console: dict[str, Visitor], model: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt(model, engine)
    Server.said.clear()
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("BERT_CONSOLE_SERVING_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("CONSOLE_SERVING_TOKEN", "t")
        found = console["trainer"].post("/console/labels/next/sample").json
        rows = [{**one, "label": "card"} for one in found["texts"]]
        answer = console["trainer"].post(
            "/console/labels/next/answered", json={"origin": found["origin"], "rows": rows}
        )
        server.shutdown()
    assert answer.json["page"] == "/console/"
    assert Server.said == [
        ("/sample", {"size": 20}),
        ("/feedback", {"prediction_id": "p1", "label": "card", "sample": "20261120-0a", "who": "trainer"}),
    ]
