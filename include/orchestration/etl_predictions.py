"""Predictions for texts that came without a label: by the champion, in parts, kept in the bucket and the warehouse."""
# Only imported inside tasks.

import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from include import lake
from include.orchestration import curating
from include.registry import models
from include.settings import settings

logger = logging.getLogger(__name__)

TEXTS_AT_ONCE = 20_000
PREDICTIONS = sa.Table(
    "weekly_predictions",
    sa.MetaData(),
    sa.Column("week", sa.Text, primary_key=True),
    sa.Column("text_hash", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("text", "source", "label")),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
)


def predict(unlabelled_uri: str, week: str) -> dict[str, Any] | None:
    """Scores a week's texts that have no label, replacing what was predicted of the week; None without texts or model.

    Returns how many there are, by which version, where the answers lie, and how many texts have each label.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    model_name = settings().model_name
    champion = models.by_alias(model_name, models.CHAMPION)
    if champion is None or not unlabelled_uri or not lake.exists(unlabelled_uri):
        return None
    uri = lake.weekly_predictions(model_name, week)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        came = pq.ParquetFile(lake.download_file(unlabelled_uri, Path(folder) / "came.parquet"))
        if not came.metadata.num_rows:
            return None
        PREDICTIONS.create(curating.engine(), checkfirst=True)
        seen: set[str] = set()
        schema = pa.schema([(column.name, pa.string()) for column in PREDICTIONS.columns])
        schema = schema.set(schema.get_field_index("probability"), pa.field("probability", pa.float64()))
        path = Path(folder) / "predictions.parquet"
        with pq.ParquetWriter(path, schema) as writer, curating.engine().begin() as connection:
            connection.execute(sa.delete(PREDICTIONS).where(PREDICTIONS.c.week == week))
            for part in came.iter_batches(TEXTS_AT_ONCE, columns=["text_hash", "text", "source"]):
                rows = list({row["text_hash"]: row for row in part.to_pylist()}.values())
                rows = [row for row in rows if row["text_hash"] not in seen]
                seen.update(row["text_hash"] for row in rows)
                answers = _answers(champion.uri, rows, week, champion.version)
                counts.update(answer["label"] for answer in answers)
                if answers:
                    connection.execute(sa.insert(PREDICTIONS), answers)
                    writer.write_table(pa.Table.from_pylist(answers, schema))
        lake.upload_file(path, uri)
    logger.info("%d texts without a label were scored by version %s", sum(counts.values()), champion.version)
    return {
        "texts": sum(counts.values()), "version": champion.version, "uri": uri, "labels": dict(counts.most_common())
    }  # fmt: skip


def _answers(model_uri: str, rows: list[dict[str, str]], week: str, version: str) -> list[dict[str, Any]]:
    from include.training.scoring import score

    scores = score(model_uri, [row["text"] for row in rows])
    best = scores.probabilities.max(-1).tolist() if rows else []
    return [
        {**row, "week": week, "label": label, "probability": probability, "version": version}
        for row, label, probability in zip(rows, scores.predicted, best, strict=True)
    ]
