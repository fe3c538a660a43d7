import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.datasets.reading import UnreadableFileError, open_table, read_rows
from include.datasets.reading.parquet_table import AT_ONCE_BYTES, ROWS, rows_at_once


def test_a_date_that_python_does_not_have_may_stand_inside_a_list() -> None:
    buffer = io.BytesIO()
    dates = pa.array([[10**12], None], pa.list_(pa.timestamp("ms")))
    far = pa.array([[10**18], None], pa.list_(pa.timestamp("ms")))
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"], "at": dates, "far": far}), buffer)
    assert list(read_rows(buffer.getvalue(), "f.parquet")["label"]) == ["x", "y"]


def repeated(value: str, rows: int) -> bytes:
    """A file whose rows all have the same text, which stands in it once."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": ["x"] * rows}), buffer, compression="zstd")
    return buffer.getvalue()


@pytest.fixture
def pool() -> Iterator[pa.MemoryPool]:
    """What Arrow takes during a test."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(usual)


def test_a_long_value_that_all_rows_share_is_never_unpacked_for_all_of_them_at_once(
    pool: pa.MemoryPool, tmp_path: Path
) -> None:
    (tmp_path / "f.parquet").write_bytes(repeated("a" * 20_000, ROWS))
    with open_table(tmp_path / "f.parquet", "f.parquet") as table:
        assert [len(frame) for frame in table.frames] == [3355, 3355, 1482]
    assert pool.max_memory() < 3 * AT_ONCE_BYTES, "a part, and the one before it"


def test_a_file_that_would_unpack_to_too_much_is_refused_before_it_is(pool: pa.MemoryPool, tmp_path: Path) -> None:
    bomb = repeated("a" * 1_000_000, ROWS)
    assert len(bomb) < 1000
    (tmp_path / "f.parquet").write_bytes(bomb)
    with (
        pytest.raises(UnreadableFileError, match="unpacks to more than 4 GiB"),
        open_table(tmp_path / "f.parquet", "f.parquet") as table,
    ):
        list(table.frames)
    assert pool.max_memory() < 10_000_000


def test_of_rows_with_long_lists_fewer_are_unpacked_at_once() -> None:
    starts = pa.array(range(0, 300 * 20_000 + 1, 20_000), pa.int32())
    lists = pa.ListArray.from_arrays(starts, pa.nulls(300 * 20_000, pa.int8()))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"] * 300, "label": ["x"] * 300, "vector": lists}), buffer)
    assert rows_at_once(pq.ParquetFile(buffer)) == 104
