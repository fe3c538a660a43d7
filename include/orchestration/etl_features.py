"""The other columns of a week's rows, as numbers beside the texts: one Parquet file a week, with the texts' hashes."""
# Only imported inside tasks.

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import lake, objects
from include.ingestion import features

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 20_000
NAMES = ("text_hash", "source", "file", "row")
SHOWN = 3


def encode(dag_id: str, week: str, raw_uri: str, mended: Mapping[str, str]) -> dict[str, Any]:
    """Writes a week's numbers, replacing what was there; returns what each column is, how many values, and examples.

    Args:
        dag_id: Whose rows: what its columns are is kept from week to week.
        week: As ``landing.week_of`` writes it.
        raw_uri: The week's rows as they were read.
        mended: Hashes of texts that a rule has mended, by those that they came with.
    """
    profile = features.Profile()
    for part in _parts(raw_uri, ("extra",)):
        profile.see(features.as_columns(part["extra"].to_pylist()))
    if not profile.samples:
        return {"kinds": {}, "values": 0, "examples": [], "uri": ""}
    kept = lake.features(dag_id, "encoders.json")
    known = objects.read_json(kept) if objects.exists(kept) else {}
    encoders = profile.encoders({name: features.Encoder(**one) for name, one in known.items()})
    objects.write_json(kept, {name: encoder.model_dump() for name, encoder in encoders.items()})
    uri = lake.features(dag_id, f"{week}.parquet")
    values = _write(uri, raw_uri, encoders, mended) if encoders else 0
    return {
        "kinds": {name: encoders[name].kind if name in encoders else "" for name in profile.samples},
        "values": values,
        "examples": _examples(profile, encoders),
        "uri": uri if encoders else "",
    }


def _write(uri: str, raw_uri: str, encoders: dict[str, features.Encoder], mended: Mapping[str, str]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"number": pa.float64(), "category": pa.int64()}
    schema = pa.schema(
        [(name, pa.string()) for name in NAMES]
        + [(f"feature.{name}", types[encoder.kind]) for name, encoder in encoders.items()]
    )
    values = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for part in _parts(raw_uri, (*NAMES, "extra")):
                numbers = features.encoded(features.as_columns(part["extra"].to_pylist()), encoders, len(part))
                values += sum(value is not None for column in numbers.values() for value in column)
                columns = {name: part[name].to_pylist() for name in NAMES}
                columns["text_hash"] = [mended.get(one, one) for one in columns["text_hash"]]
                columns |= {f"feature.{name}": column for name, column in numbers.items()}
                writer.write_table(pa.table(columns, schema=schema))
        objects.upload_file(path, uri)
    return values


def _parts(uri: str, columns: tuple[str, ...]) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    with objects.filesystem(uri).open(uri, "rb") as content:
        file = pq.ParquetFile(content)
        if set(columns) <= set(file.schema_arrow.names):  # a team's own script may keep what it likes
            yield from file.iter_batches(ROWS_AT_ONCE, columns=list(columns))


def _examples(profile: features.Profile, encoders: dict[str, features.Encoder]) -> list[tuple[str, str]]:
    """A value of some columns, before and after."""
    found = []
    for name, encoder in encoders.items():
        value = next(iter(profile.samples.get(name, ())), "")
        number = encoder.encode(value)
        if number is not None:
            found.append((f"{name}: {value[:100]}", f"{name}: {number:.6g}"))
    return found[:SHOWN]
