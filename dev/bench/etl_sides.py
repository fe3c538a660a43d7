"""One side of ``make bench-etl``: ``python -m dev.bench.etl_sides SIDE s3://…/rows.csv report.json``.

Each side is a process of its own, which measures itself from when its imports are done and its connections stand.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import s3fs  # noqa: F401 - fsspec would import it while a side is timed
import sqlalchemy as sa

from include.orchestration.warehouse import warehouse

WEEK = datetime(2026, 1, 4, tzinfo=UTC)
NEAR_DUPLICATE_ROWS = 20_000  # at most; what counts is rows per second
LOOK_SECONDS = 0.2

Work = Callable[[], dict[str, float]]
"""Does it; returns the seconds of each step."""


class Steps(dict[str, float]):
    """Seconds of each step."""

    def do(self, name: str, work: Callable[[], Any]) -> Any:
        """Does a step, and notes its seconds."""
        begun = time.perf_counter()
        result = work()
        self[name] = round(time.perf_counter() - begun, 2)
        return result


def copy(uri: str) -> Work:
    """PostgreSQL's own COPY of the same rows, as the file is."""
    from include import objects

    connection = warehouse().raw_connection()

    def work() -> dict[str, float]:
        steps = Steps()
        with objects.filesystem(uri).open(uri, "rb") as file, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS plain_copy; CREATE TABLE plain_copy (text text, label text)")
            steps.do("COPY", lambda: cursor.copy_expert("COPY plain_copy FROM STDIN WITH (FORMAT csv, HEADER)", file))
        steps.do("commit", connection.commit)
        return steps

    return work


def pandas(uri: str) -> Work:
    """What one would write: ``read_csv`` and ``to_sql``, all rows at once, no key and no merge."""
    import pandas as pd

    engine = warehouse()
    engine.connect().close()

    def work() -> dict[str, float]:
        steps = Steps()
        frame = steps.do("read_csv", lambda: pd.read_csv(uri))
        steps.do("to_sql", lambda: frame.to_sql("plain", engine, if_exists="replace", index=False))
        return steps

    return work


def weekly_etl(uri: str) -> Work:
    """The DAG's steps from the landed file to ``training_examples``, without Airflow and near-duplicates."""
    from astro.databases import create_database
    from astro.table import Metadata, Table

    from include import sql
    from include.ingestion.landing import Landed, week_of
    from include.ingestion.reading import read_files
    from include.ingestion.sources import Folder, Quality
    from include.orchestration import curating, etl_steps, handover

    landed = Landed(
        source="bench", week=week_of(WEEK), name="rows.csv", uri=uri, where=uri, size=0, sha256="", mark="bench",
        landed_at=WEEK, seen_at=WEEK,
    )  # fmt: skip
    source = Folder(name="bench", kind="folder", path="/")
    warehouse().connect().close()
    names = {kind: f"etl_{kind}_bench" for kind in curating.KINDS}

    def merge() -> None:
        curating.settle(names["curated"], names["changes"], landed.week, ["bench"], "newest")
        curating.prepare_merge(names["changes"], names["update"])
        tables = [
            Table(name=name, conn_id="warehouse", metadata=Metadata(schema="public"))
            for name in (names["update"], "training_examples")
        ]
        columns = {name: name for name in sql.COLUMNS}
        create_database("warehouse").merge_table(*tables, columns, ["text_hash"], if_conflicts="update")
        curating.insert_new(names["changes"])

    def work() -> dict[str, float]:
        steps = Steps()
        found = steps.do("read_files", lambda: read_files([(source, landed)], "bench", "bench"))
        steps.do("load_raw", lambda: handover.load(names["raw"], found.raw_uri, sql.RAW))
        steps.do("transform", lambda: _transform(names["raw"], names["sightings"]))
        quality = Quality(near_duplicates=False)
        clean = lambda: etl_steps.clean(quality, names["sightings"], names["curated"], "", landed.week)  # noqa: E731
        steps.do("preprocess_data", clean)
        steps.do("merge", merge)
        return steps

    return work


def _transform(raw: str, sightings: str) -> None:
    """As the Astro SDK does it."""
    from include import sql

    query = sql.transform(f'"{raw}"')
    with warehouse().begin() as connection:
        connection.execute(sa.text(f'DROP TABLE IF EXISTS "{sightings}"'))
        connection.execute(sa.text(f'CREATE TABLE "{sightings}" AS {query}'))


def writing(uri: str) -> Work:
    """What the way writes at the least: the same texts as often, but none is judged, grouped, sorted or settled."""
    import pyarrow.parquet as pq
    from pyarrow import csv

    from include import objects
    from include.orchestration import copying, handover

    engine, staged, names = warehouse(), f"{uri}.parquet", ("text", "label")
    engine.connect().close()

    def stage() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, target = Path(folder) / "rows.csv", Path(folder) / "rows.parquet"
            rows = csv.open_csv(objects.download_file(uri, path))
            with pq.ParquetWriter(target, rows.schema, compression="zstd") as writer:
                for part in rows:
                    writer.write_batch(part)
            objects.upload_file(target, staged)

    def run(*statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    def clean() -> None:
        for _ in copying.rows_of("SELECT text, label FROM raw", pa.schema([(name, pa.string()) for name in names])):
            pass
        run("CREATE TABLE curated AS SELECT * FROM raw")

    def merge() -> None:
        run("CREATE TABLE changes AS SELECT * FROM raw")
        for table in ("sightings", "examples"):
            run(f"CREATE TABLE {table} (LIKE raw)", f"INSERT INTO {table} SELECT * FROM changes")
            run(f"CREATE INDEX ON {table} (left(text, 16))")

    def work() -> dict[str, float]:
        steps = Steps()
        steps.do("read_files", stage)
        steps.do("load_raw", lambda: handover.load("raw", staged, names))
        steps.do("transform", lambda: run("CREATE TABLE grouped AS SELECT * FROM raw"))
        steps.do("preprocess_data", clean)
        steps.do("merge", merge)
        return steps

    return work


def near_duplicates(uri: str) -> Work:
    """That rule alone, on the first rows."""
    import pandas as pd

    from include.ingestion.quality import Cleaner, Row
    from include.ingestion.sources import Quality

    off = {"missing": False, "encoding": False, "boilerplate": False, "length": False}
    frame = pd.read_csv(uri, nrows=NEAR_DUPLICATE_ROWS)
    cleaner = Cleaner(Quality(**off), [])
    rows = [Row("", text, label, "bench", "", 0, 1) for text, label in zip(frame["text"], frame["label"], strict=True)]

    def work() -> dict[str, float]:
        steps = Steps()
        steps.do("near_duplicates", lambda: cleaner.clean(rows))
        return steps

    return work


SIDES: dict[str, Callable[[str], Work]] = {
    "COPY": copy,
    "pandas": pandas,
    "weekly_etl": weekly_etl,
    "writing": writing,
    "near_duplicates": near_duplicates,
}


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most memory, in bytes, that this process and its children have at a time while the block runs."""
    peak, ended, own = [0], threading.Event(), psutil.Process()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def main(side: str, uri: str, report: Path) -> None:
    """Measures one side in this process."""
    work = SIDES[side](uri)
    before = psutil.Process().memory_info().rss
    with watched() as peak:
        begun = time.perf_counter()
        steps = work()
        seconds = time.perf_counter() - begun
    found = {
        "seconds": round(seconds, 2), "steps": steps, "peak_mib": peak[0] >> 20, "imports_mib": before >> 20,
    }  # fmt: skip
    report.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
