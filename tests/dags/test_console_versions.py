"""The pages of versions: what one gets wrong, where two differ, files, and making one again."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from sqlalchemy.engine import Engine

from include import lake, objects
from include.settings import settings
from plugins.console.access import (
    PIPELINE,
    REPRODUCE,
)
from tests.dags.console_app import RIGHT, SCRIPT, WORSE, Visitor, answered, enter, newest, watch

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]


def test_the_champions_accuracy_is_shown_on_golden_rows_in_use_and_estimated_with_its_error(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    enter(engine, model, "promote", "1", decided_at=datetime.now(UTC) - timedelta(days=3))
    page = console["viewer"].get("/console/").text
    assert "no label was asked for at random yet" in page
    assert "the daily checks have not looked at this version yet" in page
    found = {
        "accuracy.live": 0.87, "accuracy.live_low": 0.8, "accuracy.live_high": 0.92,
        "accuracy.estimated": 0.89, "accuracy.estimated_error": 0.012,
    }  # fmt: skip
    watch(engine, [{"model": model, "check": name, "value": value} for name, value in found.items()])
    page = console["viewer"].get("/console/").text
    assert re.search(r"87.0 %</strong> \(80.0 % . 92.0 %\)", page)
    assert "89.0 %</strong>, off by 1.2 points on average" in page
    enter(engine, model, "promote", "2", "1", decided_at=datetime.now(UTC) + timedelta(days=2))
    assert "87.0 %" not in console["viewer"].get("/console/").text, "that was the former champion's"


def test_what_a_version_gets_wrong_is_shown_with_texts_and_any_two_are_compared(
    console: dict[str, Visitor], model: str, engine: Engine, tmp_path: Path
) -> None:
    enter(engine, model, "promote", "1")
    enter(engine, model, "promote", "2", "1")
    enter(engine, model, "reject", "3", "2")
    answered("run-1-promote", RIGHT, tmp_path)
    answered("run-2-promote", WORSE, tmp_path)
    page = console["viewer"].get("/console/").text
    assert "2 of 4 golden rows are wrong." in page
    assert "my card is lost" in page
    assert "a refund &lt;script&gt;" in page
    assert "my card is lost" in console["viewer"].get("/console/versions/2").text
    assert "What version 3 answered was not kept." in console["viewer"].get("/console/versions/3").text
    assert console["viewer"].get("/console/versions/4").status_code == 404

    form = console["viewer"].get("/console/versions/").text
    assert all(f'<option value="{version}">' in form for version in (1, 2, 3))
    shown = console["viewer"].get("/console/versions/?old=1&new=2").text
    assert "old=1&amp;new=2" in shown
    found = console["viewer"].json("/console/versions/changed?old=1&new=2")
    assert (found["rows"], found["counts"]) == (4, {"broken": 2, "fixed": 0, "other": 0})
    assert {row["text"] for row in found["changed"]} == {"my card is lost", f"a refund {SCRIPT}"}
    lost = console["viewer"].get("/console/versions/changed?old=1&new=3", headers={"Accept": "application/json"})
    assert (lost.status_code, lost.json["error"]) == (404, "What version 3 answered was not kept.")
    assert console["viewer"].get("/console/versions/?old=1&new=9").status_code == 404


def test_a_version_of_an_earlier_release_shows_its_confusions_without_texts(
    console: dict[str, Visitor], model: str, engine: Engine, tmp_path: Path
) -> None:
    enter(engine, model, "promote", "1")
    answered("run-1-promote", WORSE, tmp_path, texts=False)
    metrics = {"rows": 4, "labels": ["card", "refund"], "confusion": [[1, 1], [1, 1]]}
    objects.write_json(lake.report(PIPELINE, "run-1-promote", "evaluation.json"), {"challenger": {"metrics": metrics}})
    page = console["viewer"].get("/console/").text
    assert "2 of 4 golden rows are wrong." in page
    assert "Not kept by the release that made this version." in page


def test_a_version_is_downloaded_from_the_bucket_itself_and_trained_again(
    console: dict[str, Visitor], model: str, engine: Engine
) -> None:
    enter(engine, model, "promote", "7")
    objects.write_bytes(lake.model(model, "7", "model.safetensors"), b"weights")
    page = console["trainer"].get("/console/versions/7").text
    assert "make reproduce VERSION=7" in page
    address = "/console/versions/7/files/model.safetensors"
    assert f'href="{address}"' in page
    assert console["viewer"].get(address).status_code == 403
    assert "you need the role Trainer" in console["viewer"].get("/console/versions/7").text
    answer = console["trainer"].get(address)
    assert answer.status_code == 302
    got = requests.get(answer.location, timeout=30)
    assert got.content == b"weights"
    assert f"{model}-7-model.safetensors" in got.headers["Content-Disposition"]
    assert "X-Amz-Signature" in answer.location
    for other in ("../8/x", "config.json", "..%2f..%2fx"):
        assert console["trainer"].get(f"/console/versions/7/files/{other}").status_code in (404, 308), other
    assert console["trainer"].post("/console/versions/7/reproduce").status_code == 403
    assert console["admin"].post("/console/versions/7/reproduce").status_code == 302
    assert newest(REPRODUCE).conf == {"version": "7"}


def test_where_the_bucket_is_a_folder_a_file_comes_piece_by_piece(
    console: dict[str, Visitor], model: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from plugins.console import version_pages

    enter(engine, model, "promote", "7")
    monkeypatch.setenv("BERT_BUCKET", f"file://{tmp_path}")
    settings.cache_clear()
    objects.write_bytes(lake.model(model, "7", "model.safetensors"), b"weights")
    monkeypatch.setattr(version_pages, "PIECE_BYTES", 3)
    answer = console["trainer"].get("/console/versions/7/files/model.safetensors", buffered=False)
    assert list(answer.iter_encoded()) == [b"wei", b"ght", b"s"]
