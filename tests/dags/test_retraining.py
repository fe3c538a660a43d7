"""Retraining: one run per decision, backup, comparison, deployment, watch. Real Airflow database, MLflow, S3, SQL."""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pendulum
import pytest
from airflow.exceptions import AirflowSkipException, TaskDeferred
from airflow.models import DagBag, DagRun
from airflow.timetables.base import DataInterval
from airflow.utils.types import DagRunType
from mlflow import MlflowClient

from include import lake, objects
from include.alerts import outbox
from include.monitoring import deciding, estimate, traffic
from include.monitoring.assessment import Assessment
from include.monitoring.decision import Rules
from include.monitoring.drift import Comparison
from include.monitoring.traffic import Champion
from include.orchestration import canaries, promotion_steps, restore, retraining_steps, watching
from include.orchestration.timetable import OwnRunIds
from include.registry import backups, canary, ledger, models, standing
from include.registry.models import CHAMPION, PREVIOUS
from include.registry.promotion import VersionUnusable
from include.serving.prediction_log import PredictionLog, Said, new_id
from include.settings import Settings, settings
from include.uploads import lifecycle
from tests.dags.road import Road, note, states

pytest_plugins = ["tests.unit.registry_services", "tests.dags.road"]

DAG_ID = "model_retraining_dag"
DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Any:
    """In a folder, but for what asks S3 itself: a claim of uploads, an ETag."""
    if "in_s3" not in request.fixturenames:
        return request.getfixturevalue("in_folder")
    # A bucket of the test's own: a run takes all that lies in incoming/.
    return request.getfixturevalue("in_s3") | {"BERT_BUCKET": f"b{uuid4().hex}"}


def run(**conf: Any) -> DagRun:
    bag = DagBag(DAGS / f"{DAG_ID}.py", include_examples=False)
    assert not bag.import_errors, bag.import_errors
    return bag.dags[DAG_ID].test(datetime.now(UTC), run_conf=conf)


@pytest.mark.usefixtures("in_s3")
def test_a_decision_trains_deploys_and_watches_once(road: Road) -> None:
    first = road.start("cards")
    batch_id = road.waiting()
    inbox = f"{lake.root()}/incoming/later.csv"
    objects.write_bytes(inbox, road.labelled(30)[["text", "label"]].to_csv(index=False).encode())
    done = run(reason="the traffic has drifted", decision_id="0123456789abcdef")
    assert done.state == "success"
    found = states(done)
    assert found.pop("rollback_model") == "skipped"
    assert set(found.values()) == {"success"}
    champion = models.by_alias(road.registry.name, CHAMPION)
    assert champion is not None
    assert (champion.version, road.registry.aliases()[PREVIOUS]) == ("2", first)
    report = objects.read_json(lake.report(DAG_ID, done.run_id, "run.json"))
    assert (report["outcome"], report["rows"]["used"], len(report["batches"])) == ("promoted", 180, 2)
    assert batch_id in report["batches"]
    assert not objects.exists(inbox)
    assert report["asked"] == {"reason": "the traffic has drifted", "decision_id": "0123456789abcdef"}
    assert lifecycle.read(batch_id).state == "used"
    backup = backups.require(road.registry.name, first)
    assert backup.files.keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    _reads_golden_answers(road, done.run_id)
    said = note(done.run_id)
    assert said.startswith("version 2 has held for 0.02 minutes: it gets ")
    assert said.endswith("trained because: the traffic has drifted")
    before = len(ledger.entries(road.registry.engine, road.registry.name))
    again = run(reason="the traffic has drifted", decision_id="0123456789abcdef")
    assert (again.state, set(states(again).values())) == ("success", {"skipped"})
    assert note(again.run_id).startswith("**skipped** — decision 0123456789abcdef is carried out by the run manual")
    assert len(ledger.entries(road.registry.engine, road.registry.name)) == before
    cleared = SimpleNamespace(dag_id=DAG_ID, run_id=done.run_id)
    retraining_steps.claim(road.registry.name, cleared, "0123456789abcdef")  # its own decision is still its own


def _reads_golden_answers(road: Road, run_id: str) -> None:
    """What the promoted version said when it was judged is what its accuracy in production is estimated by."""
    champion = traffic.champion_of(road.registry.name, road.registry.engine, datetime.now(UTC))
    assert champion is not None
    answers = estimate.golden_answers(champion, road.registry.engine)
    assert answers is not None
    confidence, right, labels = answers
    judged = objects.read_json(lake.report(DAG_ID, run_id, "evaluation.json"))
    assert len(confidence) == len(right) == len(labels) == judged["golden_rows"]
    assert np.mean(right) == pytest.approx(judged["challenger"]["metrics"]["accuracy"])
    assert set(labels) == set(champion.labels) == {"card", "refund"}
    assert all(0.5 <= one <= 1 for one in confidence)
    # Not the first champion's, which no run has judged.
    other = dataclasses.replace(champion, version="1")
    assert estimate.golden_answers(other, road.registry.engine) is None


def test_a_run_without_a_word_of_its_own_starts_and_a_second_one_waits(airflow: None) -> None:
    dag = DagBag(DAGS / f"{DAG_ID}.py", include_examples=False).dags[DAG_ID]
    assert dag.max_active_runs == 1
    for param in dag.params.values():
        assert param is not None  # each has a default that its own schema allows
    dag.params.validate()


def trained(road: Road, model: str) -> tuple[SimpleNamespace, dict[str, Any], dict[str, Any]]:
    """A run up to its evaluation: its job makes a model of these weights. The run, the backup, the evaluation."""
    run_id = road.run(model, until="dataset")
    run = SimpleNamespace(dag_id=DAG_ID, run_id=run_id, conf={}, run_type="manual")
    backed_up = retraining_steps.back_up(run)
    dataset_id = objects.read_json(lake.staging(run_id, "dataset.json"))["dataset_id"]
    result_uri = road.train(objects.read_json(lake.dataset(dataset_id, "manifest.json")), model)
    return run, backed_up, promotion_steps.evaluate_challenger(run, result_uri)


def test_a_lost_comparison_leaves_the_champion_as_its_backup_says_and_takes_back_what_was_moved(road: Road) -> None:
    first = road.start()
    run, backed_up, evaluated = trained(road, "wrong")
    assert backed_up["version"] == first
    assert retraining_steps.choose(evaluated) == "rollback_model"
    objects.write_bytes(lake.model(road.registry.name, first, "config.json"), b"{}")  # somebody's hand
    lost = retraining_steps.lose(run, evaluated, backed_up)
    assert (lost["outcome"], road.champion()) == ("rejected", first)
    assert road.outcome(run.run_id) == "rejected"
    assert "version 1 is the champion as before" in note(run.run_id)
    assert lost["champion"].endswith("of its files config.json has another content: brought back from the backup")
    assert backups.damaged(backups.require(road.registry.name, first), lake.model(road.registry.name, first)) == []
    again = retraining_steps.lose(run, evaluated, backed_up)
    assert again["champion"] == "version 1 is the champion as before, and its files are those of its backup"
    assert [verb for verb, _, _ in road.ledger()] == ["promote", "reject"]
    models.point(road.registry.name, CHAMPION, "2")  # in MLflow's page: the one that has lost
    told = retraining_steps.lose(run, evaluated, backed_up)["champion"]
    assert told.startswith(f"{road.registry.name}: version 1 is the champion again")
    assert road.champion() == first
    last = ledger.last_move(road.registry.engine, road.registry.name)
    assert last is not None
    assert (last.verb, last.actor, last.previous_champion) == ("rollback", f"dag:{DAG_ID}", "2")


def test_somebodys_decision_while_a_run_trained_stays(road: Road) -> None:
    road.start()
    second = road.start()
    run, backed_up, evaluated = trained(road, "wrong")
    road.registry.rollback()
    lost = retraining_steps.lose(run, evaluated, backed_up)
    assert road.champion() == "1"
    assert lost["outcome"] == "superseded", "its rows are built on the champion of now"
    assert lost["champion"].startswith("version 1 is the champion now, by somebody's decision")
    assert f"Version {second}, the champion of before, is as its backup" in lost["champion"]


def look(road: Road, version: str, minutes: float = 0.0) -> Any:
    """A look at a version some minutes after it was promoted."""
    (move, *_) = ledger.moves_to(road.registry.engine, road.registry.name, version)
    now = move.decided_at + timedelta(minutes=minutes)
    return watching.look(
        road.registry.name, version, road.registry.engine, actor="dag:x", dag_run_id=f"watch {version}", now=now
    )


@pytest.fixture
def an_hour(airflow: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BERT_WATCH_MINUTES", "60")
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_a_champion_that_holds_is_looked_at_until_its_time_is_over_and_no_worker_is_held(
    an_hour: None, road: Road
) -> None:
    road.start()
    version = road.start()
    (move, *_) = ledger.moves_to(road.registry.engine, road.registry.name, version)
    assert look(road, version) == move.decided_at + timedelta(minutes=3)
    assert look(road, version, 59) == move.decided_at + timedelta(minutes=60)
    assert look(road, version, 60).startswith("version 2 has held for 60 minutes: it gets ")
    assert look(road, "1") == "version 1 is not the champion any more (version 2 is): there is nothing to watch"
    sensor: Any = DagBag(DAGS / f"{DAG_ID}.py", include_examples=False).dags[DAG_ID].get_task("watch_new_model")
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context({"version": version, "outcome": "promoted"}))
    _, arguments = deferred.value.trigger.serialize()
    assert move.decided_at < arguments["moment"] < move.decided_at + timedelta(minutes=10)
    assert deferred.value.method_name == "execute_complete"
    with pytest.raises(AirflowSkipException, match="nothing was promoted"):
        sensor.execute(context({"version": version, "outcome": "awaiting_approval"}))
    assert sensor.retries == 30


def context(settled: dict[str, Any]) -> dict[str, Any]:
    run = SimpleNamespace(dag_id=DAG_ID, run_id="watched")
    began = datetime.now(UTC)
    return {"dag_run": run, "ti": SimpleNamespace(start_date=began, xcom_pull=lambda task_ids: [None, settled])}


def test_a_champion_that_gets_golden_rows_wrong_is_replaced_by_the_one_before(an_hour: None, road: Road) -> None:
    first = road.start()
    backups.keep(road.registry.name, first, lake.model(road.registry.name, first).rstrip("/"), tags={})
    version = road.start("wrong")
    objects.delete(lake.model(road.registry.name, first, "tokenizer.json"))  # the backup has it
    told = look(road, version, 3)
    assert told.startswith(f"{road.registry.name}: version {first} is the champion again. It gets ")
    assert road.champion() == first
    last = ledger.last_move(road.registry.engine, road.registry.name)
    assert last is not None
    assert last.reason.startswith("version 2 has failed in its first 60 minutes: it gets 0 of ")
    assert last.previous_champion == version
    (alert,) = [one.alert for one in outbox.unsent(road.registry.name) if one.alert.kind == "rollback"]
    assert alert.key == last.decision_id
    assert look(road, version, 4) == "version 2 is not the champion any more (version 1 is): there is nothing to watch"


@pytest.mark.usefixtures("in_s3")
def test_a_champion_whose_files_were_changed_is_asked_again(an_hour: None, road: Road) -> None:
    first, version = road.start(), road.start()
    assert isinstance(look(road, version, 1), datetime)
    objects.write_bytes(lake.model(road.registry.name, version, "model.safetensors"), b"damaged")
    assert "version 1 is the champion again" in look(road, version, 2)
    assert road.champion() == first


def test_a_champion_before_that_was_deleted_comes_back_from_its_backup(an_hour: None, road: Road) -> None:
    road.start()
    first = road.start()
    backups.keep(road.registry.name, first, lake.model(road.registry.name, first).rstrip("/"), tags={})
    version = road.start("wrong")
    MlflowClient(settings().mlflow_tracking_uri).delete_model_version(road.registry.name, first)
    assert "version 4 is the champion again" in look(road, version, 1)
    assert road.champion() == "4"


def test_a_first_champion_that_fails_has_nothing_to_go_back_to(an_hour: None, road: Road) -> None:
    version = road.start("wrong")
    with pytest.raises(VersionUnusable, match="no previous champion"):
        look(road, version, 1)
    assert road.champion() == version


def label(road: Road, version: str, at: datetime, right: int, wrong: int) -> None:
    """What people say of texts chosen at random."""
    said = [{"label": "card", "predicted": "card"}] * right + [{"label": "refund", "predicted": "card"}] * wrong
    ids = itertools.count()
    lines = [
        json.dumps({"version": version, "at": at.isoformat(), "prediction_id": f"{version}-{right}-{next(ids)}", **one})
        for one in said
    ]
    uri = lake.feedback(road.registry.name, f"labelled/date={at:%Y-%m-%d}/{version}-{right}.jsonl")
    objects.write_bytes(uri, "\n".join(lines).encode())


def test_a_champion_that_is_less_often_right_by_peoples_labels_is_replaced(an_hour: None, road: Road) -> None:
    first, version = road.start(), road.start()
    (move, *_) = ledger.moves_to(road.registry.engine, road.registry.name, version)
    label(road, first, move.decided_at - timedelta(days=3), right=190, wrong=10)
    label(road, version, move.decided_at + timedelta(minutes=5), right=9, wrong=1)
    assert isinstance(look(road, version, 10), datetime), "too few to say"
    label(road, version, move.decided_at + timedelta(minutes=20), right=20, wrong=60)
    assert "version 1 is the champion again" in look(road, version, 30)
    last = ledger.last_move(road.registry.engine, road.registry.name)
    assert last is not None
    assert "by people's labels 32.2% of 90 (" in last.reason
    assert "of version 1's 95.0% of 200 (" in last.reason


def test_a_champion_is_not_compared_with_answers_from_before_a_drift(an_hour: None, road: Road) -> None:
    first, version = road.start(), road.start()
    registry = road.registry
    (move, *_) = ledger.moves_to(registry.engine, registry.name, version)
    label(road, first, move.decided_at - timedelta(days=9), right=900, wrong=100)
    label(road, first, move.decided_at - timedelta(days=2), right=50, wrong=50)
    label(road, version, move.decided_at + timedelta(minutes=5), right=60, wrong=40)
    day = (move.decided_at - timedelta(days=1)).date()
    drift = Comparison("label mix", 3, 1e-9, 1e-4, 1e-6, "card 41.0%, was 20.0%")
    spans = ((day - timedelta(days=31), day - timedelta(days=3)), (day - timedelta(days=2), day))
    champion = Champion(registry.name, first, "", ("card", "refund"), move.decided_at - timedelta(days=40))
    deciding.decide_day(
        champion, registry.engine, day, move.decided_at, Assessment((drift,), *spans, (1_000, 400), "…"), 500, Rules(),
        actor="test",
    )  # fmt: skip
    assert isinstance(look(road, version, 10), datetime), "it is better than the one before at what comes now"


def answers(road: Road, version: str, at: datetime, count: int, corrected: int) -> None:
    """What a version answered, and how much of it somebody has corrected."""
    ids = [new_id(at) for _ in range(count)]
    said = Said(
        model=road.registry.name, version=version, at=at, ids=ids, texts=["where is my card"] * count,
        cut=[False] * count, labels=["card", "refund"], latency_ms=1.0, caller_ids=[None] * count,
        probabilities=np.tile(np.array([[0.9, 0.1]], np.float32), (count, 1)),
    )  # fmt: skip
    log = PredictionLog("full", seconds=60)
    log.add(said)
    log.close()
    lines = [json.dumps({"prediction_id": one, "label": "refund", "at": at.isoformat()}) for one in ids[:corrected]]
    uri = lake.feedback(road.registry.name, f"date={at:%Y-%m-%d}/{version}-{count}.jsonl")
    objects.write_bytes(uri, "\n".join(lines).encode())


def test_a_champion_that_is_corrected_more_often_is_replaced(an_hour: None, road: Road) -> None:
    first, version = road.start(), road.start()
    (move, *_) = ledger.moves_to(road.registry.engine, road.registry.name, version)
    answers(road, first, move.decided_at - timedelta(minutes=30), count=600, corrected=6)
    answers(road, version, move.decided_at + timedelta(minutes=5), count=300, corrected=4)
    assert isinstance(look(road, version, 10), datetime), "as many as before"
    answers(road, version, move.decided_at + timedelta(minutes=15), count=301, corrected=200)
    assert "version 1 is the champion again" in look(road, version, 30)
    last = ledger.last_move(road.registry.engine, road.registry.name)
    assert last is not None
    assert last.reason.endswith("204 of 601 answers were corrected, and of version 1's 6 of 600 answers")


def test_a_canary_that_a_server_saw_fail_is_replaced_once_by_whoever_looks_first(an_hour: None, road: Road) -> None:
    road.start()
    version = road.start()
    found = models.by_version(road.registry.name, version)
    assert found is not None
    models.tag(found, {canary.PERCENT: "10", canary.UNTIL: datetime.now(UTC).isoformat()})
    canary.fail(found, "3 of 100 requests failed")
    told = canaries.watch(road.registry.name, version, road.registry.engine, dag_run_id="the canary's")
    assert told
    assert "version 1 is the champion again" in told
    assert "not the champion any more" in look(road, version, 1)
    assert [one.alert.kind for one in outbox.unsent(road.registry.name)].count("rollback") == 1
    assert [verb for verb, _, _ in road.ledger()] == ["promote", "promote", "rollback"]


def test_a_version_comes_back_from_its_backup_by_a_command(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    name = road.registry.name
    first = road.start()
    champion = models.by_alias(name, CHAMPION)
    assert champion is not None
    kept = retraining_steps.keep(champion)
    assert retraining_steps.keep(champion) == kept, "once"
    road.start()
    for folder in (lake.model(name, first), lake.job(champion.tags["job_id"], "model/")):
        objects.filesystem(folder).rm(folder, recursive=True)
    assert restore.main(["--model", name, "--version", first, "--reason", "a disk was lost"]) == 0
    assert "model.safetensors is gone" in (said := capsys.readouterr().out)
    assert "version 1 is the champion again" in said
    assert backups.damaged(kept, lake.model(name, first)) == []
    MlflowClient(settings().mlflow_tracking_uri).delete_model_version(name, first)
    objects.filesystem(lake.root()).rm(lake.model(name, first), recursive=True)
    assert restore.main(["--model", name, "--version", first, "--reason", "somebody has deleted it"]) == 0
    assert "version 1 was deleted in MLflow: it is version 3 now" in capsys.readouterr().out
    assert road.champion() == "3"
    assert restore.main(["--model", name]) == 0
    assert capsys.readouterr().out.startswith("version 1  20")
    objects.write_bytes(lake.backup(name, first, "files/config.json"), b"{}")
    assert restore.main(["--model", name, "--version", first, "--reason", "again"]) == 1
    assert "the backup of" in (said := capsys.readouterr().err)
    assert "is damaged: config.json has another content" in said
    assert restore.main(["--model", name, "--version", "9", "--reason", "again"]) == 1
    assert "version 9 has no backup. There are: version 1 (" in capsys.readouterr().err


def test_a_damaged_backup_is_made_again_the_oldest_go_and_a_champion_has_its_files_from_the_newest(road: Road) -> None:
    name = road.registry.name
    for _ in range(3):
        version = road.start()
        champion = models.by_alias(name, CHAMPION)
        assert champion is not None
        retraining_steps.keep(champion)
    objects.write_bytes(lake.backup(name, version, "files/config.json"), b"{}")
    retraining_steps.keep(champion)
    assert backups.require(name, version)
    assert backups.thin_out(name, 2, "3") == ["1"]
    assert [one.version for one in backups.known(name)] == ["3", "2"]
    assert objects.find(lake.backup(name, "1")) == []
    for folder in (lake.model(name, version), lake.job(champion.tags["job_id"], "model/")):
        objects.filesystem(folder).rm(folder, recursive=True)
    (told,) = standing.champion(name, road.registry.engine).told
    assert told.endswith("they were copied again from its backup")


@pytest.mark.parametrize(
    ("schedule", "summary", "run_id"),
    [
        ("", "None", None),
        ("@monthly", "@monthly", "scheduled__2026-01-01T00:00:00+00:00__model_retraining_dag"),
        ("0 4 * * 1", "0 4 * * 1", "scheduled__2026-01-01T00:00:00+00:00__model_retraining_dag"),
    ],
    ids=["none", "preset", "cron"],
)
def test_the_calendar_starts_it_where_a_setting_says_so(
    airflow: None, monkeypatch: pytest.MonkeyPatch, schedule: str, summary: str, run_id: str | None
) -> None:
    monkeypatch.setenv("BERT_RETRAIN_SCHEDULE", schedule)
    settings.cache_clear()
    try:
        dag = DagBag(DAGS / f"{DAG_ID}.py", include_examples=False).dags[DAG_ID]
    finally:
        settings.cache_clear()
    assert (dag.timetable.summary, bool(schedule)) == (summary, dag.timetable.can_be_scheduled)
    if run_id:
        at = pendulum.datetime(2026, 1, 1)
        interval = DataInterval(at, at.add(months=1))
        arguments = {"logical_date": at, "data_interval": interval}
        assert dag.timetable.generate_run_id(run_type=DagRunType.SCHEDULED, **arguments) == run_id
        assert dag.timetable.generate_run_id(run_type=DagRunType.MANUAL, **arguments).endswith("00:00")
        same = OwnRunIds.deserialize(dag.timetable.serialize())
        assert (same.summary, same.dag_id) == (summary, DAG_ID)


def test_a_schedule_that_is_none_is_refused_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_RETRAIN_SCHEDULE", "monthly")
    with pytest.raises(ValueError, match=r"'monthly' is neither one of @hourly, .* nor a cron expression"):
        Settings()
