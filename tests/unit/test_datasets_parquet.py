import io

import pyarrow as pa
import pyarrow.parquet as pq

from include.datasets.reading import read_rows


def test_a_date_that_python_does_not_have_may_stand_inside_a_list() -> None:
    buffer = io.BytesIO()
    dates = pa.array([[10**12], None], pa.list_(pa.timestamp("ms")))
    far = pa.array([[10**18], None], pa.list_(pa.timestamp("ms")))
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"], "at": dates, "far": far}), buffer)
    assert list(read_rows(buffer.getvalue(), "f.parquet")["label"]) == ["x", "y"]
