"""Files of texts scored by one version, in parts: killed and run again, it goes on where it was."""

import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import parquet
from pydantic import BaseModel

from include import lake, objects
from include.registry import models
from include.serving.prediction_log import LogTexts, Said, as_table, folder, new_id

if TYPE_CHECKING:
    from include.training.scoring import Scorer

logger = logging.getLogger(__name__)

PART = 16_384  # rows in memory, and of a file that is written
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
ANSWERS = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("second", pa.string()),
        ("second_probability", pa.float32()),
    ]
)
"""What each row gets, in place of columns that it may have of these names; empty where it has no text."""


class CannotScore(ValueError):
    """There is nothing to score, or nothing to score it with; the message says what."""


class Scored(BaseModel):
    """A finished batch: the version that answered, and where its answers lie as ``part-*.parquet``."""

    model: str
    version: str
    source: str
    target: str
    rows: int
    labels: dict[str, int]


class _Begun(BaseModel):
    """What a batch is about, kept when it first begins."""

    version: str
    at: datetime
    files: dict[str, str]  # and their ETags


def score(
    model: str, source: str, target: str, *, name: str, column: str = "", version: str | None = None, texts: LogTexts
) -> Scored:
    """Scores the file at a URI, or all files of a folder (ending in /), with the champion or another version.

    Args:
        model: the registered model.
        source: CSV, TSV, JSON Lines or Parquet.
        target: the folder for the answers: all columns of the source and ``ANSWERS``.
        name: of this batch; with the same one, what is done is not done again.
        column: with the texts; empty: found by its usual names.
        version: empty: the champion's when this first begins.
        texts: what the log keeps of them.

    Raises:
        CannotScore: no file, no text column or no version; or a file is another one than when this began.
    """
    done = f"{target.rstrip('/')}/_done.json"
    if objects.exists(done):
        return Scored.model_validate(objects.read_json(done))
    begun = _begin(model, source, target, version)
    found = models.by_version(model, begun.version)
    if found is None:
        raise CannotScore(f"{model} has no version {begun.version} any more")
    with objects.local(found.uri) as files:
        from include.training.scoring import Scorer

        scorer = Scorer(str(files))
    rows, labels = 0, Counter[str]()
    for at, uri in enumerate(begun.files):
        for number, part in enumerate(_parts(uri, begun.files[uri])):
            here = f"{target.rstrip('/')}/part-{at:04}-{number:05}.parquet"
            if objects.exists(here):
                answers = parquet.read_table(io.BytesIO(objects.read_bytes(here)), columns=["label"])
            else:
                log = f"{folder(model, f'{begun.at:%Y-%m-%d}')}batch-{lake.slug(name)}-{at:04}-{number:05}.parquet"
                answers = _answer(model, begun, scorer, part, column, log, texts)
                _write(here, answers)
                logger.info("%s: %d rows", here, len(answers))
            rows += len(answers)
            labels.update(label for label in answers["label"].to_pylist() if label is not None)
    scored = Scored(
        model=model, version=begun.version, source=source, target=target, rows=rows, labels=dict(labels.most_common())
    )
    objects.write_json(done, scored.model_dump())
    return scored


def _begin(model: str, source: str, target: str, version: str | None) -> _Begun:
    """What this batch is about, as it was when it first began."""
    uri = f"{target.rstrip('/')}/_begun.json"
    if not objects.exists(uri):
        found = models.by_version(model, version) if version else models.by_alias(model, models.CHAMPION)
        if found is None:
            raise CannotScore(f"{model} has no {f'version {version}' if version else 'champion yet'}")
        uris = objects.find(source) if source.endswith("/") else [source]
        files = {one: objects.etag(one) or "" for one in uris if one.lower().endswith(KINDS) and objects.exists(one)}
        if not files:
            raise CannotScore(f"there is nothing at {source}: a file ({', '.join(KINDS)}), or a folder ending in /")
        begun = _Begun(version=found.version, at=datetime.now(UTC), files=files)
        objects.create_bytes(uri, begun.model_dump_json().encode())
    return _Begun.model_validate_json(objects.read_bytes(uri))


def _parts(uri: str, etag: str) -> Iterator[pa.Table]:
    if (objects.etag(uri) or "") != etag:
        raise CannotScore(f"{uri} is another file than when this began: start anew with another output")
    with tempfile.TemporaryDirectory() as place:
        yield from tables_of(objects.download_file(uri, Path(place) / uri.rsplit("/", 1)[-1]), PART)


def _answer(
    model: str, begun: _Begun, scorer: "Scorer", part: pa.Table, column: str, log: str, texts: LogTexts
) -> pa.Table:
    """A part's rows with their answers, which are logged before."""
    cells = part[text_column(part.column_names, column)].cast(pa.string()).to_pylist()
    some = [(row, text) for row, text in enumerate(cells) if text]
    asked = [text for _, text in some]
    # One token more than the model reads shows which texts are cut.
    longer = [len(row) > scorer.max_length for row in scorer.tokenize(asked, scorer.max_length + 1)] if asked else []
    found = scorer.probabilities(scorer.tokenize(asked))
    ids = [new_id(begun.at) for _ in asked]
    nobody: list[str | None] = [None] * len(asked)
    if asked:
        said = Said(
            model, begun.version, begun.at, ids, asked, longer, scorer.labels, found, None, nobody, source="batch"
        )
        _write(log, as_table([said], texts))
    answers: list[dict[str, Any]] = [{} for _ in cells]
    for (row, _), key, numbers in zip(some, ids, found, strict=True):
        order = (-numbers).argsort()[:2]
        names = (("label", "probability"), ("second", "second_probability"))
        answers[row] = {"prediction_id": key}
        for (label, probability), index in zip(names, order, strict=False):
            answers[row] |= {label: scorer.labels[index], probability: float(numbers[index])}
    kept = part.select([name for name in part.column_names if name not in ANSWERS.names])
    columns = pa.Table.from_pylist(answers, ANSWERS)
    for name in ANSWERS.names:
        kept = kept.append_column(ANSWERS.field(name), columns[name])
    return kept


def _write(uri: str, table: pa.Table) -> None:
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    objects.write_bytes(uri, sink.getvalue())


def tables_of(file: Path, rows: int) -> Iterator[pa.Table]:
    """A CSV, TSV, JSON Lines or Parquet file in pieces of so many rows; of the first two, every cell is a text."""
    import pandas as pd

    kind = file.suffix.lower()
    if kind == ".parquet":
        with parquet.ParquetFile(file) as source:
            for batch in source.iter_batches(rows):
                yield pa.Table.from_batches([batch])
        return
    if kind in (".jsonl", ".ndjson"):
        frames: Any = pd.read_json(file, lines=True, chunksize=rows, dtype=False)
    else:
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
        frames = pd.read_csv(file, sep=_separator(file), chunksize=rows, **options)
    with frames:
        for frame in frames:
            yield pa.Table.from_pandas(frame, preserve_index=False)


def text_column(names: Sequence[str], wanted: str) -> str:
    """The column with the texts: the one that is wanted, or one of a usual name, or the only one.

    Raises CannotScore with those there are.
    """
    from include.datasets.reading import TEXT_COLUMNS

    by_name = {name.strip().lower(): name for name in names}
    candidates = [wanted.lower()] if wanted else [*TEXT_COLUMNS, *(by_name if len(by_name) == 1 else ())]
    found = next((by_name[name] for name in candidates if name in by_name), None)
    if found is None:
        raise CannotScore(f"no text column among {', '.join(map(repr, names))}: name it")
    return found


def _separator(file: Path) -> str:
    """By which the header is divided; a comma if it is one column."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        header = lines.readline()
    return max(",;\t|", key=header.count)
