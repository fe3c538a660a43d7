"""Reads an uploaded file into rows, whatever is in it: what cannot be read is a row with a rule and a reason."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from include.datasets.names import partitions
from include.datasets.reading.containers import check_content, kind_of, unpacked
from include.datasets.reading.csv_table import WHOLE, DamagedPartError, Part, read_csv
from include.datasets.reading.json_table import read_json
from include.datasets.reading.parquet_table import read_parquet
from include.datasets.reading.table import COLUMNS, LABEL_COLUMNS, TEXT_COLUMNS, Table, UnreadableFileError, Wanted
from include.settings import settings

__all__ = [
    "COLUMNS",
    "LABEL_COLUMNS",
    "TEXT_COLUMNS",
    "WHOLE",
    "DamagedPartError",
    "Part",
    "Table",
    "UnreadableFileError",
    "open_table",
    "read_rows",
]


@contextmanager
def open_table(
    path: Path, key: str, text_column: str = "", label_column: str = "", part: Part = WHOLE
) -> Iterator[Table]:
    """A labelled file's rows, for as long as the block runs.

    ``key`` is the name it was uploaded under: its ending says what the file is, and its folders may name columns
    (``label=billing/``). Without column names, or where there are none of these names, the text and the label are found
    by the usual ones. Raises UnreadableFileError, here or while the rows are read, if the file is no table of labelled
    texts. Of a large, plain CSV file a ``part`` can be read; DamagedPartError says that this file is none.
    """
    wanted, in_path = Wanted(text_column, label_column), partitions(key)
    limit = int(settings().max_unpacked_gib * 2**30)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = kind_of(key)
        path = unpacked(path, key, folder, limit)
        check_content(path, key, kind)
        if kind == "csv":
            yield read_csv(path, folder, wanted, in_path, part)
        elif part != WHOLE:
            raise DamagedPartError("only CSV is read in parts")
        elif kind == "json":
            yield read_json(path, folder, wanted, in_path)
        elif kind == "parquet":
            yield read_parquet(path, wanted, in_path, limit)
        else:
            from include.datasets.reading.excel_table import read_xlsx

            yield read_xlsx(path, wanted, in_path, limit)


def read_rows(content: bytes, key: str, text_column: str = "", label_column: str = "") -> pd.DataFrame:
    """All rows of a file that is small enough for it: the columns ``COLUMNS``, and ``file``, its key.

    Raises UnreadableFileError, also if there are no rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content"
        path.write_bytes(content)
        with open_table(path, key, text_column, label_column) as table:
            frames = [frame.astype({"text": object, "label": object, "extra": object}) for frame in table.frames]
    if not any(map(len, frames)):
        raise UnreadableFileError(f"{posixpath.basename(key)} has no rows")
    return pd.concat(frames, ignore_index=True).assign(file=key)
