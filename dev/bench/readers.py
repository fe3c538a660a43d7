"""Other programs' readers, each as its manual says: what they make of a file, as columns by name.

DuckDB, clevercsv, and what pandas needs for .xlsx and .zst are no packages of this project; ``make bench-reading``
puts them aside.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dev.state import REPOSITORY

ASIDE = REPOSITORY / ".local" / "bench-packages"
# With null_padding, without strict_mode, or with both changed, DuckDB 2.0.1 gets fewer of tests/cases right.
DUCKDB = {
    "csv": "read_csv(?, all_varchar = true, ignore_errors = true, store_rejects = true)",
    "json": "read_json_auto(?)",
    "parquet": "read_parquet(?, hive_partitioning = true)",
}

Columns = dict[str, list[Any]]


class CannotReadError(ValueError):
    """A reader is not made for this kind of file."""


def find_packages_aside() -> None:
    """Lets the packages that were put aside be imported; the project's own come first.

    Raises FileNotFoundError if they are not there.
    """
    if not (ASIDE / "duckdb").is_dir():
        raise FileNotFoundError(f"DuckDB and clevercsv are not in {ASIDE}: `make bench-reading` puts them there")
    if str(ASIDE) not in sys.path:
        sys.path.append(str(ASIDE))


def by_pandas(path: Path) -> Columns:
    """``pandas.read_…`` with its defaults; a .tsv has tabs, a .jsonl and .ndjson has lines."""
    import pandas as pd

    kind = _kind(path)
    if kind == "csv":
        frame = pd.read_csv(path, sep=_separator(path))
    elif kind == "json":
        frame = pd.read_json(path, lines=not {".jsonl", ".ndjson"}.isdisjoint(path.suffixes))
    else:
        frame = pd.read_parquet(path) if kind == "parquet" else pd.read_excel(path)
    return {str(name): frame[name].tolist() for name in frame.columns}


def by_duckdb(path: Path) -> Columns:
    """DuckDB: its dialect sniffer with ``store_rejects``, ``read_json_auto``, Hive's partitions."""
    import duckdb

    kind = _kind(path)
    if kind not in DUCKDB:
        raise CannotReadError(f"DuckDB alone has no reader of .{kind}")
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT * FROM {DUCKDB[kind]}",
            [f"{path}/**/*.parquet" if path.is_dir() else str(path)],
        )
        names = [column[0] for column in found.description]
        rows = found.fetchall()
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def by_clevercsv(path: Path) -> Columns:
    """clevercsv's detector and reader, on the text as charset-normalizer decodes it."""
    import clevercsv

    if _kind(path) != "csv" or path.suffix in (".gz", ".zst"):
        raise CannotReadError("clevercsv reads CSV that is not compressed")
    text = decoded_by_guess(path.read_bytes())
    dialect = clevercsv.Detector().detect(text)
    if dialect is None:
        raise CannotReadError("clevercsv found no dialect")
    header, *rows = (row for row in clevercsv.reader(io.StringIO(text, newline=""), dialect) if row)
    return {name: [row[at] if at < len(row) else None for row in rows] for at, name in enumerate(header)}


def by_pyarrow(path: Path) -> Columns:
    """pyarrow's CSV, JSON and dataset readers; rows that do not fit are left out, as DuckDB does it."""
    from pyarrow import csv, dataset, json

    kind = _kind(path)
    if kind == "csv":
        options = csv.ParseOptions(
            delimiter=_separator(path), newlines_in_values=True, invalid_row_handler=lambda row: "skip"
        )
        table = csv.read_csv(path, parse_options=options)
    elif kind == "json":
        table = json.read_json(path)
    elif kind == "parquet":
        table = dataset.dataset(path, format="parquet", partitioning="hive").to_table()
    else:
        raise CannotReadError(f"pyarrow has no reader of .{kind}")
    columns: Columns = table.to_pydict()
    return columns


def decoded_by_guess(content: bytes) -> str:
    """Bytes as charset-normalizer decodes them. Raises CannotReadError if it takes them for no text."""
    from charset_normalizer import from_bytes

    best = from_bytes(content).best()
    if best is None:
        raise CannotReadError("charset-normalizer found no encoding")
    return str(best)


OTHERS: dict[str, Callable[[Path], Columns]] = {
    "pandas": by_pandas,
    "DuckDB": by_duckdb,
    "clevercsv": by_clevercsv,
    "pyarrow": by_pyarrow,
}


def _kind(path: Path) -> str:
    from include.datasets.reading.containers import kind_of  # brings pandas, whose memory is not every reader's

    return "parquet" if path.is_dir() else kind_of(path.name)


def _separator(path: Path) -> str:
    return "\t" if ".tsv" in path.suffixes else ","
