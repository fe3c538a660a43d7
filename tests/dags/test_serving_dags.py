"""The DAGs around the model server, run by Airflow: real PostgreSQL, MLflow's own store, a tiny model."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from airflow.models import DagBag, DagRun
from airflow.utils.db import initdb
from sqlalchemy.engine import Engine

from include import lake
from include.registry import canary, ledger, models
from include.serving import feedback
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
    return [row for uri in uris for row in pq.read_table(io.BytesIO(lake.read_bytes(uri))).to_pylist()]


def test_a_table_is_scored_and_its_answers_can_be_corrected(registry: Registry, engine: Engine) -> None:
    frame = pd.DataFrame({"number": [1, 2, 3], "text": TEXTS})
    frame.to_sql("to_be_scored", engine, index=False, if_exists="replace")
    target = f"{lake.root()}/answers"
    run("batch_predictions", source="to_be_scored")
    (folder,) = {uri.rsplit("/", 1)[0] for uri in lake.find(lake.root()) if uri.endswith("/_done.json")}
    rows = rows_at([uri for uri in lake.find(folder) if uri.endswith(".parquet")])
    assert [(row["number"], row["text"]) for row in rows] == [("1", TEXTS[0]), ("2", TEXTS[1]), ("3", TEXTS[2])]
    assert {row["label"] for row in rows} <= {"card", "refund"}
    assert not lake.find(target)
    now = datetime.now(UTC)
    other = {"card": "refund", "refund": "card"}[rows[0]["label"]]
    feedback.keep(registry.name, {"prediction_id": rows[0]["prediction_id"], "label": other}, now)
    run("collect_feedback", today=True)
    (uri,) = lake.find(lake.incoming("feedback/"))
    (row,) = rows_at([uri])
    assert (row["text"], row["label"], row["predicted"]) == (TEXTS[0], other, rows[0]["label"])
    run("collect_feedback", today=True)
    assert lake.find(lake.incoming("feedback/")) == [uri]


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
