"""The DAGs around the model server, run by Airflow: real PostgreSQL, MLflow's own store, a tiny model."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from airflow.models import DagBag, DagModel, DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake, objects
from include.orchestration import watching
from include.registry import canary, ledger, models
from include.serving import feedback
from tests.dags.road import note
from tests.unit.registry_services import Registry, as_connection, deployment

pytest_plugins = ["tests.unit.registry_services"]

DAGS = Path(__file__).parents[2] / "dags"
TEXTS = ["where is my card", "a refund", "lost my card"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, engine: Engine, tiny_bert: Path) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("served")
    values = {
        "BERT_BUCKET": f"file://{folder}/lake", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "BERT_MODEL_NAME": "served-by-dags", "BERT_CANARY": "10", "BERT_CANARY_MINUTES": "60",
        "AIRFLOW_CONN_WAREHOUSE": as_connection(engine.url),
    }  # fmt: skip
    with deployment(**values):
        initdb(load_connections=False)
        found = Registry("served-by-dags", tiny_bert, engine)
        found.promote_new()
        yield found


def run(name: str, **conf: Any) -> DagRun:
    """A DAG run to its end, which is a success."""
    bag = DagBag(DAGS / f"{name}.py", include_examples=False)
    assert not bag.import_errors, bag.import_errors
    done = bag.dags[name].test(datetime.now(UTC), run_conf=conf)
    assert done.state == "success"
    return done


def rows_at(uris: list[str]) -> list[dict[str, Any]]:
    return [row for uri in uris for row in pq.read_table(io.BytesIO(objects.read_bytes(uri))).to_pylist()]


def test_a_table_is_scored_and_its_answers_can_be_corrected(registry: Registry, engine: Engine) -> None:
    frame = pd.DataFrame({"number": [1, 2, 3], "text": TEXTS})
    frame.to_sql("to_be_scored", engine, index=False, if_exists="replace")
    target = f"{lake.root()}/answers"
    run("batch_predictions", source="to_be_scored")
    (folder,) = {uri.rsplit("/", 1)[0] for uri in objects.find(lake.root()) if uri.endswith("/_done.json")}
    rows = rows_at([uri for uri in objects.find(folder) if uri.endswith(".parquet")])
    assert [(row["number"], row["text"]) for row in rows] == [("1", TEXTS[0]), ("2", TEXTS[1]), ("3", TEXTS[2])]
    assert {row["label"] for row in rows} <= {"card", "refund"}
    assert not objects.find(target)
    now = datetime.now(UTC)
    other = {"card": "refund", "refund": "card"}[rows[0]["label"]]
    feedback.keep(registry.name, {"prediction_id": rows[0]["prediction_id"], "label": other}, now)
    run("collect_feedback", today=True)
    (uri,) = objects.find(lake.incoming("feedback/"))
    (row,) = rows_at([uri])
    assert (row["text"], row["label"], row["predicted"]) == (TEXTS[0], other, rows[0]["label"])
    run("collect_feedback", today=True)
    assert objects.find(lake.incoming("feedback/")) == [uri]


def test_a_canary_that_is_over_is_entered_in_the_ledger(registry: Registry, engine: Engine) -> None:
    version = registry.promote_new()
    champion = models.by_alias(registry.name, models.CHAMPION)
    assert champion is not None
    baking = canary.of(champion)
    assert baking is not None
    assert baking.bakes(datetime.now(UTC))
    assert not baking.bakes(datetime.now(UTC) + timedelta(hours=2))
    models.tag(champion, {canary.UNTIL: datetime.now(UTC).isoformat()})
    run("watch_canary", version=version)
    (entry,) = ledger.entries(engine, registry.name, verbs=["bake"])
    assert entry.version == version
    assert entry.facts[canary.FACT]["answers"] == 0
    run("watch_canary", version="1")  # it is not champion: nothing happens
    assert [one.version for one in ledger.entries(engine, registry.name, verbs=["bake"])] == [version]


def test_a_champion_that_no_retraining_deployed_is_watched_once_and_put_back_if_it_fails(
    registry: Registry, engine: Engine
) -> None:
    first = registry.promote_new()
    version = registry.promote_new()
    DagBag(DAGS / "watch_champion.py", include_examples=False).sync_to_db()
    for dag_id in (*watching.WATCH_THEMSELVES, "bert_model_training_pipeline", "decide_challenger"):
        watching.begin(registry.name, version, engine, dag_id=dag_id)
    with create_session() as session:
        (begun,) = session.query(DagRun).filter_by(dag_id="watch_champion")
        assert (begun.state, begun.conf) == ("queued", {"version": version})
    objects.write_bytes(lake.model(registry.name, version, "model.safetensors"), b"damaged")
    run("watch_champion", version=version)
    assert registry.aliases()["champion"] == first
    last = ledger.last_move(engine, registry.name)
    assert last is not None
    assert (last.verb, last.actor) == ("rollback", "dag:watch_champion")
    run("watch_champion", version=version)  # somebody was quicker: nothing happens
    assert ledger.last_move(engine, registry.name) == last


def test_a_champion_that_somebody_has_set_in_mlflow_is_entered_and_watched_like_a_promotion(
    registry: Registry, engine: Engine
) -> None:
    DagBag(DAGS / "watch_champion.py", include_examples=False).sync_to_db()
    good, bad = registry.promote_new(), registry.train()
    assert note(run("watch_champion").run_id) == f"version {good} is the champion, as the ledger says"
    models.point(registry.name, models.CHAMPION, bad)
    objects.write_bytes(lake.model(registry.name, bad, "model.safetensors"), b"damaged")
    assert f"was set to version {bad} by hand" in note(run("watch_champion").run_id)
    run("watch_champion")  # the next of every ten minutes
    move = ledger.last_move(engine, registry.name)
    assert move is not None
    assert (move.verb, move.version, move.previous_champion) == ("by_hand", bad, good)
    assert move.actor == "unknown, by hand in MLflow"
    with create_session() as session:
        (begun,) = [one for one in session.query(DagRun).filter_by(state="queued") if one.conf == {"version": bad}]
    run("watch_champion", **begun.conf)
    assert registry.aliases()["champion"] == good


def test_a_move_by_hand_is_watched_while_it_is_young_and_not_anew_where_its_runs_are_gone(
    registry: Registry, engine: Engine
) -> None:
    DagBag(DAGS / "watch_champion.py", include_examples=False).sync_to_db()
    version = registry.train()
    models.point(registry.name, models.CHAMPION, version)

    def watched_anew() -> bool:
        watching.notice(registry.name, engine)
        with create_session() as session:
            begun = session.query(DagRun).filter(DagRun.run_id.startswith(f"watch__{registry.name}__{version}__"))
            return begun.delete(synchronize_session=False) == 1

    assert watched_anew()
    assert watched_anew(), "as in an Airflow whose database is new"
    with deployment(BERT_WATCH_MINUTES="0.0001"):
        assert not watched_anew(), "it has held"


def test_a_promotion_stands_where_nobody_can_watch_it(
    registry: Registry, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    version = registry.promote_new()
    with create_session() as session:
        session.query(DagModel).filter_by(dag_id="watch_champion").delete()
    watching.begin(registry.name, version, engine, dag_id="weekly_etl")
    assert f"version {version} is not watched: the DAG watch_champion is not here" in caplog.text
    assert registry.aliases()["champion"] == version
