"""What a run of ``batch_predictions`` does: a table becomes a file first, so that its rows stay as they are."""
# Only imported inside tasks.

import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from airflow.models import DagRun

from include import lake, objects
from include.markdown import plain
from include.orchestration import notes
from include.orchestration.warehouse import warehouse
from include.serving import batch
from include.settings.serving import ServingSettings


def score(dag_run: DagRun, model_name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Scores a run's source; returns what ``batch.score`` found. Raises CannotScore."""
    source = params["source"]
    if "://" not in source:
        source = _table_as_file(source, lake.staging(dag_run.run_id, "table.parquet"))
    target = params["output"] or lake.report(dag_run.dag_id, dag_run.run_id, "answers/")
    scored = batch.score(
        model_name,
        source,
        target,
        name=f"{dag_run.dag_id} {dag_run.run_id}",
        column=params["text_column"] or "",
        version=params["version"],
        texts=ServingSettings().log_texts,
    )
    most = ", ".join(f"{label} {count:,}" for label, count in list(scored.labels.items())[:5])
    told = f"version {scored.version} answered {scored.rows:,} rows of {params['source']}: {most}. They are in {target}"
    notes.set_note(dag_run.dag_id, dag_run.run_id, plain(told))
    return scored.model_dump()


def _table_as_file(name: str, uri: str) -> str:
    """A table's rows as Parquet, in parts; whatever its columns are, they are texts there. Done once."""
    import pyarrow as pa
    from pyarrow import parquet

    if objects.exists(uri):
        return uri
    engine = warehouse()
    schema, _, table = name.rpartition(".")
    try:
        known = sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=engine)
    except sa.exc.NoSuchTableError:
        raise batch.CannotScore(f"the warehouse has no table {name}") from None
    columns = pa.schema([(column.name, pa.string()) for column in known.columns])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        with parquet.ParquetWriter(path, columns) as writer, engine.connect() as connection:
            found = connection.execution_options(stream_results=True).execute(sa.select(known))
            for rows in found.partitions(batch.PART):
                cells = [[None if cell is None else str(cell) for cell in column] for column in zip(*rows, strict=True)]
                writer.write_table(pa.Table.from_arrays([pa.array(one, pa.string()) for one in cells], schema=columns))
        return objects.upload_file(path, uri)
