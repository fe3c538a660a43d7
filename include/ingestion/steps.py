"""What a team's own script needs to be a step of the weekly ETL: it changes texts, or leaves some out.

The script is run as ``python script.py FROM TO``; see include/scripts/steps/redact.py.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from include import objects

ROWS_AT_ONCE = 20_000


def rewrite_texts(change: Callable[[str], str]) -> None:
    """Writes the rows of one Parquet file to another, both named on the command line, with each text changed.

    A row whose text becomes empty is left out. Some thousands of rows are in memory at a time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.ingestion.quality import hash_of

    before, after = sys.argv[1:]
    came = left_out = changed = 0
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder) / "before.parquet", Path(folder) / "after.parquet"
        rows = pq.ParquetFile(objects.download_file(before, path))
        with pq.ParquetWriter(target, rows.schema_arrow) as writer:
            for part in rows.iter_batches(ROWS_AT_ONCE):
                old = part["text"].to_pylist()
                new = [change(text).strip() for text in old]
                table = pa.Table.from_batches([part])
                for name, values in (("text", new), ("text_hash", list(map(hash_of, new)))):
                    place = table.schema.get_field_index(name)
                    table = table.set_column(place, table.schema.field(name), pa.array(values, pa.string()))
                writer.write_table(table.filter(pa.array([bool(text) for text in new])))
                came += len(new)
                left_out += sum(not text for text in new)
                changed += sum(bool(one) and one != text for one, text in zip(new, old, strict=True))
        objects.upload_file(target, after)
    print(f"{came} rows: {changed} changed, {left_out} left out")
