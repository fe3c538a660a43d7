"""The weekly ETL by Spark, a master and two workers, beside the same weeks by SQL. Parquet lies on the disk here.

Spark's packages are no part of the project's: `make test-spark` brings them.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from airflow.exceptions import AirflowFailException
from sqlalchemy.engine import Engine

from include import lake, objects, sql
from include.datasets.checks import text_keys
from include.orchestration import curating, etl_spark, handover
from include.settings import settings
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

SPARK = find_spec("pyspark")
SOURCES = ["desk", "it's"]
WEEKS = [f"2026-W0{number}" for number in range(1, 3)]
RULES = ["newest", "majority"]
FILE = {"file": "a.csv", "row": "1", "extra": ""}

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not SPARK, reason="Spark's packages are not installed: make test-spark"),
    pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java 17"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    assert SPARK
    folder, home, port = tmp_path_factory.mktemp("spark"), Path(str(SPARK.origin)).parent, free_port()
    master = f"spark://127.0.0.1:{port}"
    environment = os.environ | {"SPARK_HOME": str(home), "SPARK_WORKER_DIR": str(folder / "work")}
    deploy = "org.apache.spark.deploy"
    commands = [[f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]]
    worker = [f"{deploy}.worker.Worker", "--host", "127.0.0.1", "--webui-port", "0", "--cores", "1", "-m", "512M"]
    commands += [[*worker, master]] * 2
    servers = []
    with (folder / "log").open("w") as log:
        for command in commands:
            program = [str(home / "bin" / "spark-class"), *command]
            servers.append(subprocess.Popen(program, env=environment, stdout=log, stderr=log, cwd=folder))
    try:
        deadline = time.monotonic() + 120
        while (said := (folder / "log").read_text()).count("Successfully registered with master") < 2:
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARK_HOME", str(home))
            patch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
            patch.setenv("PYSPARK_PYTHON", sys.executable)
            yield master
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


@pytest.fixture
def warehouse(engine: Engine, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    host, _, port = cluster.rpartition(":")
    conf = {
        "spark.executor.memory": "512m", "spark.driver.memory": "512m", "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4", "spark.driver.host": "127.0.0.1",
    }  # fmt: skip
    values = {
        "AIRFLOW_CONN_WAREHOUSE": as_connection(engine.url),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": host, "port": int(port)}),
        "BERT_BUCKET": f"file://{tmp_path}/bucket", "BERT_ETL_ENGINE": "spark", "BERT_SPARK_CONF": json.dumps(conf),
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield engine
    forget(engine)
    settings.cache_clear()


def forget(engine: Engine) -> None:
    found = sa.inspect(engine)
    with engine.begin() as connection:
        for name in found.get_table_names():
            if name in ("raw", "example_sightings", "training_examples") or name.startswith("etl_"):
                connection.execute(sa.text(f'DROP TABLE "{name}"'))


def rows(week: int) -> pa.Table:
    """Some hundred rows of few texts: the same ones with other labels, cases, sources and times."""
    chance = random.Random(week)
    found = []
    for _ in range(400):
        text = f"text {chance.randrange(60 + 40 * week)}"
        found.append(
            {
                "text": text.upper() if chance.random() < 0.2 else text, "label": f"label {chance.randrange(3)}",
                "source": chance.choice(SOURCES), "trust": str(chance.randrange(2)),
                "seen_at": f"2026-01-{7 * week + chance.randrange(1, 4):02}T00:00:00Z", **FILE,
            }
        )  # fmt: skip
    table = pa.Table.from_pylist(found)
    hashes = pa.array([f"{key:016x}" for key in text_keys(table["text"].combine_chunks())])
    return table.append_column("text_hash", hashes)


def table(engine: Engine, name: str) -> list[Any]:
    with engine.connect() as connection:
        columns = sorted(column["name"] for column in sa.inspect(connection).get_columns(name))
        names = ", ".join(columns)
        return [tuple(row) for row in connection.execute(sa.text(f'SELECT {names} FROM "{name}" ORDER BY {names}'))]


def merged(engine: Engine) -> list[Any]:
    """As the Astro SDK and ``insert_new`` merge; returns the whole table."""
    curating.prepare_merge("etl_changes", "etl_update")
    columns = ", ".join(sql.COLUMNS)
    updates = ", ".join(f"{name} = excluded.{name}" for name in sql.COLUMNS)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"INSERT INTO training_examples ({columns}) SELECT {columns} FROM etl_update "
                f"ON CONFLICT (text_hash) DO UPDATE SET {updates}"
            )
        )
    curating.insert_new("etl_changes")
    return table(engine, "training_examples")


def curate(engine: Engine) -> None:
    """All sightings, as ``preprocess_data`` hands them on."""
    curating.write_rows("etl_curated", curating.rows_of("etl_sightings", curating.CURATED))


def by_sql(engine: Engine, uri: str, week: str, rule: str) -> list[Any]:
    handover.load("raw", uri, sql.RAW)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS etl_sightings"))
        connection.execute(sa.text(f"CREATE TABLE etl_sightings AS {sql.transform('raw')}"))
    curate(engine)
    curating.settle("etl_curated", "etl_changes", week, SOURCES, rule)
    found = [table(engine, "etl_sightings"), table(engine, "etl_changes"), curating.changes_of("etl_changes")]
    return [*found, merged(engine)]


def by_spark(engine: Engine, uri: str, week: str, rule: str) -> list[Any]:
    target = lake.staging(week, "spark/sightings/")
    etl_spark.operator(task_id="transform", steps=etl_spark.transform_job(uri, target)).execute({})
    etl_spark.load("etl_sightings", target)
    curate(engine)
    given = etl_spark.settle(week, "etl_curated", "etl_changes", week, SOURCES, rule)
    found = [table(engine, "etl_sightings"), table(engine, "etl_changes"), curating.changes_of("etl_changes", given)]
    return [*found, merged(engine)]


def sorted_facts(found: list[Any]) -> list[Any]:
    shown = [{**one, "given": sorted(one["given"])} for one in found[2]["contradictions"]]
    return [*found[:2], {**found[2], "contradictions": shown}, found[3]]


def test_weeks_by_spark_come_to_the_same_as_by_sql_row_for_row(warehouse: Engine, tmp_path: Path) -> None:
    weeks = []
    for number, week in enumerate(WEEKS):
        path = tmp_path / f"{week}.parquet"
        pq.write_table(rows(number), path)
        weeks.append((f"file://{path}", week, RULES[number]))
    first_by_sql = [sorted_facts(by_sql(warehouse, *one)) for one in weeks]
    assert len(first_by_sql[-1][3]) > 80
    forget(warehouse)
    # Spark takes over after a week by SQL.
    assert sorted_facts(by_sql(warehouse, *weeks[0])) == first_by_sql[0]
    assert sorted_facts(by_spark(warehouse, *weeks[1])) == first_by_sql[1]
    etl_spark.settle(WEEKS[1], "etl_curated", "etl_changes", WEEKS[1], SOURCES, RULES[1])
    assert merged(warehouse) == first_by_sql[1][3], "a week that is done again changes nothing"
    folders = {uri.rsplit("/", 2)[1] for uri in objects.find(lake.sightings()) if uri.endswith(".parquet")}
    assert len(folders) == 2, "what holds, and what the last run began with"
    # And back to SQL: nothing was lost on the way.
    with pytest.raises(AirflowFailException, match="BERT_ETL_ENGINE was spark"):
        etl_spark.check_warehouse_has_all()
    etl_spark.take_back()
    etl_spark.check_warehouse_has_all()
    assert by_sql(warehouse, *weeks[1])[3] == first_by_sql[1][3]


def test_a_job_that_fails_leaves_the_sightings_as_they_were(
    warehouse: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw.parquet"
    pq.write_table(rows(0), path)
    by_sql(warehouse, f"file://{path}", WEEKS[0], "newest")
    monkeypatch.setattr(sql, "settle", lambda *_: "SELECT nothing FROM nowhere")
    with pytest.raises(Exception, match="spark-submit"):
        etl_spark.settle("run", "etl_curated", "etl_changes", WEEKS[0], SOURCES, "newest")
    assert not objects.exists(lake.sightings(etl_spark.CURRENT))


def test_the_dag_has_the_same_tasks_and_spark_transforms_before_rows_are_loaded(
    warehouse: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models import DagBag

    bag = DagBag(Path(__file__).parents[2] / "dags" / "weekly_etl.py", include_examples=False)
    assert not bag.import_errors
    dag = bag.dags["weekly_etl"]
    assert dag.get_task("transform").task_type == "SparkSubmitOperator"
    assert dag.get_task("transform").downstream_task_ids == {"load_raw"}
    assert dag.get_task("load_raw").downstream_task_ids == {"preprocess_data"}
