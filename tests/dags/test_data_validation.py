"""The daily validation, run by Airflow: real PostgreSQL, S3 over HTTP, MLflow's own store, a tiny model.

A month of one champion's days: calm, then another mix of labels. What each run leaves is looked at.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from airflow.exceptions import AirflowFailException
from airflow.models import DagBag, DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from pyarrow import parquet
from sqlalchemy.engine import Engine

from include import lake, objects
from include.evaluation import charts
from include.monitoring import results
from include.monitoring.checks import not_checked
from include.orchestration.validating import Validation
from include.registry import ledger, models
from include.registry.promotion import promote
from include.serving import feedback
from include.serving.prediction_log import Said, as_table, folder
from tests.unit.registry_services import WORDS, Registry, as_connection, deployment

pytest_plugins = ["tests.unit.registry_services"]

DAGS = Path(__file__).parents[2] / "dags"
MODEL = "watched"
SINCE = datetime.now(UTC).date() - timedelta(days=47)  # its champion's
DRIFTS = SINCE + timedelta(days=15)
RETRAINING = """
from datetime import datetime
from airflow import DAG
with DAG("model_retraining_dag", start_date=datetime(2025, 1, 1), schedule=None):
    pass
"""


@dataclass
class Watch:
    engine: Engine
    registry: Registry

    def answer(self, day: date, *, refunds: float, texts: int = 60) -> None:
        """A day's answers, as the model server logs them."""
        dice = np.random.default_rng(day.toordinal())
        refund = dice.random(texts) < refunds
        shares = np.where(refund[:, None], [0.1, 0.9], [0.85, 0.15]).astype(np.float32)
        begins = ["a refund is lost" if one else "where is my card" for one in refund]
        words = [f"{begin} {' '.join(dice.choice(WORDS[5:], 6))}" for begin in begins]
        at = datetime.combine(day, time(12), UTC)
        ids = [f"{at:%Y%m%d}-{uuid4().hex}" for _ in words]
        said = Said(MODEL, "1", at, ids, words, [False] * texts, ["card", "refund"], shares, 5.0, [None] * texts)
        sink = io.BytesIO()
        parquet.write_table(as_table([said], "full"), sink)
        objects.write_bytes(f"{folder(MODEL, day.isoformat())}answers.parquet", sink.getvalue())

    def run(self, after: date, **conf: Any) -> DagRun:
        """The run in the night after a day; another is the same run, cleared."""
        at = datetime.combine(after + timedelta(days=1), time(0, 10), UTC)
        return dag().test(at, run_conf=conf)

    def checks(self, day: date) -> dict[str, Any]:
        return {one.name: one for one in results.of_day(self.engine, MODEL, day)}

    def rows(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text('SELECT * FROM monitoring_results ORDER BY day, model, "check"')))

    def decisions(self) -> dict[str, str]:
        found = ledger.entries(self.engine, MODEL, verbs=["drift_decision"], limit=1_000)
        return {one.facts["day"]: one.facts["decision"] for one in found}

    def alerts(self) -> list[dict[str, Any]]:
        found = [objects.read_json(uri)["alert"] for uri in objects.find(lake.alerts(MODEL, "outbox/"))]
        return sorted(found, key=lambda one: (one["kind"], one["key"]))

    def retrainings(self) -> list[DagRun]:
        with create_session() as session:
            return list(session.query(DagRun).filter_by(dag_id="model_retraining_dag"))


@cache
def dag() -> Any:
    bag = DagBag(DAGS / "data_validation_dag.py", include_examples=False)
    assert not bag.import_errors, bag.import_errors
    found = bag.dags["data_validation_dag"]
    for task in found.tasks:
        task.retries = 0
    return found


def states(run: DagRun) -> dict[str, str]:
    return {one.task_id: str(one.state) for one in run.get_task_instances()}


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory, engine: Engine, s3_url: str, tiny_bert: Path) -> Iterator[Watch]:
    scratch = tmp_path_factory.mktemp("watch")
    values = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db", "AWS_ENDPOINT_URL": s3_url, "BERT_BUCKET": "watch",
        "BERT_MODEL_NAME": MODEL, "AIRFLOW_CONN_WAREHOUSE": as_connection(engine.url),
    }  # fmt: skip
    with deployment(**values):
        initdb(load_connections=False)
        (scratch / "retraining.py").write_text(RETRAINING)
        DagBag(scratch, include_examples=False).sync_to_db()
        with create_session() as session:
            session.query(DagRun).delete()  # what other files' tests have left
        yield Watch(engine, Registry(MODEL, tiny_bert, engine))
        with create_session() as session:
            session.query(DagRun).delete()


@pytest.fixture(scope="module")
def month(watch: Watch) -> Iterator[dict[str, DagRun]]:
    """A day before the champion; calm days; a drift that nobody has labels for; later some have come."""
    without = pytest.MonkeyPatch()
    runs = {"before": watch.run(SINCE - timedelta(days=2))}
    version = watch.registry.train()
    entry = watch.registry.decision(version, None)
    at = datetime.combine(SINCE, time(9), UTC)
    promote(entry.model_copy(update={"decided_at": at}), watch.engine)
    for number in range(40):
        day = SINCE + timedelta(days=number)
        watch.answer(day, refunds=0.5 if day < DRIFTS else 0.95)
    runs["calm"] = watch.run(DRIFTS - timedelta(days=1))
    for picture in ("over_days", "two_mixes"):  # takes seconds; the calm day's are looked at
        without.setattr(charts, picture, lambda *_, **__: "")
    runs["label"] = watch.run(DRIFTS + timedelta(days=2))
    Validation(runs["label"], MODEL, (DRIFTS + timedelta(days=3)).isoformat()).decide()
    for number in range(60):
        feedback.keep(MODEL, {"prediction_id": f"answer-{number}", "label": "card"}, at + timedelta(days=number % 20))
    runs["retrain"] = watch.run(DRIFTS + timedelta(days=18))
    yield runs
    without.undo()


def test_a_day_without_a_champion_or_any_row_is_checked(watch: Watch, month: dict[str, DagRun]) -> None:
    run = month["before"]
    assert run.state == "success"
    assert states(run)["trigger_retraining"] == "skipped"
    checks = watch.checks(SINCE - timedelta(days=2))
    assert checks["predictions.rows"].value == 0
    assert checks["drift.score"].told == "there is no champion yet"
    assert not any(one.verdict == "failed" for one in checks.values())


def test_a_calm_day_passes_and_has_a_page(watch: Watch, month: dict[str, DagRun]) -> None:
    day = DRIFTS - timedelta(days=1)
    assert month["calm"].state == "success"
    checks = watch.checks(day)
    assert checks["predictions.rows"].value == 60
    assert {"drift.label_mix.3", "drift.confidence.7", "predictions.empty_texts", "predictions.volume"} <= checks.keys()
    assert [name for name, one in checks.items() if one.verdict == "failed"] == []
    assert watch.decisions()[day.isoformat()] == "nothing"
    page = objects.read_bytes(lake.day_report(MODEL, day.isoformat(), "day.html")).decode()
    assert "As usual" in page
    unsure = objects.read_bytes(lake.monitoring(MODEL, f"unsure/{day}.csv")).decode("utf-8-sig")
    first, *_ = csv.DictReader(io.StringIO(unsure))
    assert float(first["probability"]) == pytest.approx(0.85, abs=0.001), "the champion is least sure of these"
    assert first["label"] == ""
    assert objects.exists(lake.day_report(MODEL, day.isoformat(), "volume.png"))
    with create_session() as session:
        run = session.query(DagRun).filter_by(run_id=month["calm"].run_id).one()
        assert "no check failed" in run.note


def test_a_drift_without_new_labels_asks_for_them_by_the_texts_worth_most(
    watch: Watch, month: dict[str, DagRun]
) -> None:
    day = DRIFTS + timedelta(days=2)
    assert month["label"].state == "success"
    assert states(month["label"])["trigger_retraining"] == "skipped"
    assert watch.decisions()[day.isoformat()] == "label"
    assert watch.checks(day)["drift.score"].verdict == "failed"
    assert "refund" in watch.checks(day)["drift.domain"].told
    rows = list(
        csv.DictReader(
            io.StringIO(objects.read_bytes(lake.monitoring(MODEL, f"to_label/{day}.csv")).decode("utf-8-sig"))
        )
    )
    assert 5 < len(rows) <= 100
    assert {row["label"] for row in rows} == {""}
    drifts = [one for one in watch.alerts() if one["kind"] == "drift"]
    assert any("label the texts that are worth most" in one["title"] for one in drifts)
    page = objects.read_bytes(lake.day_report(MODEL, day.isoformat(), "day.html")).decode()
    assert "What has changed" in page


def test_a_drift_that_goes_on_is_told_once(watch: Watch, month: dict[str, DagRun]) -> None:
    assert watch.decisions()[(DRIFTS + timedelta(days=3)).isoformat()] == "wait"
    assert len([one for one in watch.alerts() if one["kind"] == "drift"]) == 2, (
        "that of the label, and the retraining's"
    )


def test_with_new_labels_a_drift_starts_one_retraining_that_knows_why(watch: Watch, month: dict[str, DagRun]) -> None:
    day = DRIFTS + timedelta(days=18)
    assert states(month["retrain"])["trigger_retraining"] == "success"
    (run,) = watch.retrainings()
    entry = ledger.find(watch.engine, run.conf["decision_id"])
    assert entry is not None
    assert entry.facts["day"] == day.isoformat()
    assert run.conf["reason"] == entry.reason
    assert "there are 60 new labelled rows to learn from" in entry.reason


def test_a_drift_of_long_ago_is_shown_and_trains_nothing(watch: Watch, month: dict[str, DagRun]) -> None:
    before, day = (watch.decisions(), watch.alerts()), DRIFTS + timedelta(days=10)
    found = Validation(month["retrain"], MODEL, day.isoformat()).decide()
    assert (found["decision"], found["starts"]) == ("nothing", False)
    assert "that was 9 days ago and may be over" in found["reason"]
    assert (watch.decisions(), watch.alerts()) == before
    held = Validation(month["retrain"], MODEL, (DRIFTS + timedelta(days=2)).isoformat()).decide()
    assert (held["decision"], held["starts"]) == ("label", False), "what was decided then holds"


def test_a_run_that_is_repeated_changes_nothing(watch: Watch, month: dict[str, DagRun]) -> None:
    before = (watch.rows(), watch.decisions(), watch.alerts(), [one.run_id for one in watch.retrainings()])
    sums = {uri: objects.etag(uri) for uri in objects.find(lake.monitoring(MODEL, "days/"))}
    stale = not_checked("drift.gone.3", "by a check of before")
    results.enter(watch.engine, MODEL, DRIFTS + timedelta(days=18), [stale])
    again = watch.run(DRIFTS + timedelta(days=18))
    assert states(again)["trigger_retraining"] == "skipped"
    assert (watch.rows(), watch.decisions(), watch.alerts(), [one.run_id for one in watch.retrainings()]) == before
    assert {uri: objects.etag(uri) for uri in objects.find(lake.monitoring(MODEL, "days/"))} == sums


def test_a_broken_schema_stops_the_run_and_says_what_is_wrong(watch: Watch, month: dict[str, DagRun]) -> None:
    day = DRIFTS + timedelta(days=30)
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(pd.DataFrame({"id": ["a"], "text": ["b"]})), sink)
    objects.write_bytes(f"{folder(MODEL, day.isoformat())}broken.parquet", sink.getvalue())
    run = watch.run(day)
    assert run.state == "failed"
    assert states(run)["check_data_quality"] == states(run)["decide_on_drift"] == "upstream_failed"
    assert watch.checks(day)["schema.predictions"].verdict == "failed"
    assert day.isoformat() not in watch.decisions()
    page = objects.read_bytes(lake.day_report(MODEL, day.isoformat(), "day.html")).decode()
    assert "it has no column at, version, label, probability" in page


def test_a_day_may_be_named_and_what_failed_is_told(watch: Watch, month: dict[str, DagRun]) -> None:
    day = SINCE + timedelta(days=42)
    at = datetime.combine(day, time(12), UTC)
    said = Said(
        MODEL, "1", at, [uuid4().hex for _ in range(50)], [""] * 50, [False] * 50, ["card", "refund"],
        np.tile(np.array([0.6, 0.4], np.float32), (50, 1)), 5.0, [None] * 50,
    )  # fmt: skip
    sink = io.BytesIO()
    parquet.write_table(as_table([said], "full"), sink)
    objects.write_bytes(f"{folder(MODEL, day.isoformat())}empty.parquet", sink.getvalue())
    assert watch.run(day + timedelta(days=1), day=day.isoformat()).state == "success"
    assert watch.checks(day)["predictions.empty_texts"].verdict == "failed"
    told = [one for one in watch.alerts() if one["kind"] == "quality" and "empty_texts" in one["text"]]
    assert len(told) == 1
    assert models.by_alias(MODEL, models.CHAMPION) is not None


def test_a_day_that_has_not_come_is_refused_and_one_that_is_not_over_is_not_decided_on(
    watch: Watch, month: dict[str, DagRun]
) -> None:
    today = datetime.now(UTC).date()
    coming = today + timedelta(days=2)
    with pytest.raises(AirflowFailException, match=f"day: {coming} has not come yet"):
        Validation(month["calm"], MODEL, coming.isoformat())
    before = watch.alerts()
    assert watch.run(SINCE + timedelta(days=41), day=today.isoformat()).state == "success"
    assert today.isoformat() not in watch.decisions()
    assert watch.alerts() == before
    assert objects.exists(lake.day_report(MODEL, today.isoformat(), "day.html"))
