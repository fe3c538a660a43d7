"""How fast, and in how much memory, one reader reads a large CSV: ``python -m dev.bench.reading_pace side csv report``.

Each side is a process of its own, which measures itself from when its imports are done.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from dev.bench import readers

BATCH = 100_000  # rows
LABELS = 20
NON_ASCII = 0.02  # of the rows
SENTENCES = 5  # of a text
CLEVERCSV_ROWS = 200_000  # at most; it is slow, and what counts is rows per second
CLEVERCSV_SAMPLE = 10_000  # characters that its detector gets; its time grows with their square

Work = Callable[[], int]


def write_rows(path: Path, rows: int) -> None:
    """Writes a CSV of the columns id, text and label: texts in quotes with commas, about 430 bytes a row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    random = np.random.default_rng(7)
    words = "the card was not sent back in time and we ask you to pay for it again please"
    sentences = [
        ", ".join(" ".join(random.choice(np.array(words.split()), 9)) for _ in range(2)) + "." for _ in range(5_000)
    ]
    sentences += [f'He said "{sentence}"' for sentence in sentences[:100]]
    plain = len(sentences)
    sentences += [f"Grüße aus Köln, à bientôt, {sentence} 東京" for sentence in sentences[:100]]
    pool = pa.array(sentences)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("label", pa.string())])
    with csv.CSVWriter(path, schema) as writer:
        for start in range(0, rows, BATCH):
            ids = np.arange(start, min(start + BATCH, rows))
            chosen = random.integers(0, plain, (SENTENCES, len(ids)))
            odd = random.random(len(ids)) < NON_ASCII
            chosen[0, odd] = random.integers(plain, len(sentences), odd.sum())
            parts = [pool.take(pa.array(one)) for one in chosen]
            number = pc.binary_join_element_wise("Note ", pa.array(ids).cast(pa.string()), ":", "")
            texts = pc.binary_join_element_wise(number, *parts, " ")
            names = pa.array([f"class {label}" for label in range(LABELS)])
            labels = names.take(pa.array(random.integers(0, LABELS, len(ids))))
            writer.write_table(pa.table([pa.array(ids), texts, labels], schema=schema))


def pandas_read_csv(path: Path) -> Work:
    """All rows at once, as most people do it."""
    import pandas as pd

    return lambda: len(pd.read_csv(path))


def csv_module(path: Path) -> Work:
    """Python's own reader, row by row, nothing kept."""
    import csv

    def work() -> int:
        with path.open(newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.reader(file)) - 1

    return work


def duckdb_streamed(path: Path) -> Work:
    """DuckDB's sniffer and rejects, its rows in Arrow's batches, nothing kept."""
    import duckdb

    def work() -> int:
        with duckdb.connect() as connection:
            found = connection.sql(f"SELECT * FROM {readers.DUCKDB['csv']}", params=[str(path)])
            return sum(len(batch) for batch in found.to_arrow_reader(BATCH))

    return work


def clevercsv_streamed(path: Path) -> Work:
    """clevercsv's detector on the file's beginning, then its reader on the first rows, nothing kept."""
    import clevercsv

    def work() -> int:
        with path.open(newline="", encoding="utf-8") as file:
            dialect = clevercsv.Detector().detect(file.read(CLEVERCSV_SAMPLE))
            file.seek(0)
            return sum(1 for _ in islice(clevercsv.reader(file, dialect), 1, CLEVERCSV_ROWS + 1))

    return work


def pyarrow_streamed(path: Path) -> Work:
    """pyarrow's streaming reader, nothing kept."""
    from pyarrow import csv

    def work() -> int:
        options = csv.ParseOptions(newlines_in_values=True)
        with csv.open_csv(path, parse_options=options) as batches:
            return sum(len(batch) for batch in batches)

    return work


def our_reader(path: Path) -> Work:
    """What `validate_files` reads with, frame by frame, nothing kept."""
    from include.datasets.reading import open_table

    def work() -> int:
        with open_table(path, path.name) as table:
            return sum(map(len, table.frames))

    return work


def whole_validation(path: Path) -> Work:
    """All that `validate_data` does: fetches, reads and judges each row, and writes the accepted ones to the lake."""
    for name in [name for name in os.environ if name.startswith("BERT_") and name != "BERT_BUCKET"]:
        del os.environ[name]
    from include.datasets.intake import Plan, Source, validate_files

    source = Source(batch_id="bench", key=f"incoming/{path.name}", uri=f"file://{path}")
    plan = Plan(run_id="bench", model_name="bench", sources=[source], parent_dataset_id=None)
    return lambda: validate_files(plan).accepted_rows


SIDES: dict[str, Callable[[Path], Work]] = {
    "pandas.read_csv": pandas_read_csv,
    "Python's csv": csv_module,
    "DuckDB": duckdb_streamed,
    "clevercsv": clevercsv_streamed,
    "pyarrow": pyarrow_streamed,
    "this project's reader": our_reader,
    "validate_files": whole_validation,
}


def main(side: str, path: Path, report: Path) -> None:
    """Measures one side in this process, and writes its seconds, CPU seconds, peak memory and rows."""
    readers.find_packages_aside()
    work = SIDES[side](path)
    started, cpu_before = time.perf_counter(), time.process_time()
    rows = work()
    found = {
        "rows": rows,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu_before, 2),
        "peak_mib": _peak_kib() // 1024,
    }
    report.write_text(json.dumps(found))


def _peak_kib() -> int:
    """This program's peak. What wait4 says of a process would count from the size of its parent on."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
