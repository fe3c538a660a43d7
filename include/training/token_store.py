"""From a snapshot's Parquet files to token ids in Arrow files, read piece by piece and never whole.

The Arrow files are memory-mapped in training, so a data set may be larger than memory. They are kept beside the
snapshot, so that no later job with the same tokenizer tokenises it again.
"""
# ruff: noqa: TID253 - imported with the trainer, inside functions

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from include import lake, objects
from include.training.errors import TrainingError

logger = logging.getLogger(__name__)

PIECE = 4_096  # rows that are read, tokenised and written at a time
FORMAT = "1"  # part of the cache's key: another format is another file


class Rows:
    """Token ids and label indices in a memory-mapped Arrow file, as Trainer wants a data set.

    Args:
        path: With the columns input_ids (list of int32) and label (int32), in pieces of any number of rows.
    """

    def __init__(self, path: Path) -> None:
        with pa.ipc.open_file(pa.memory_map(str(path))) as file:
            pieces = [file.get_batch(number) for number in range(file.num_record_batches)]
        self._labels = [piece["label"].to_numpy() for piece in pieces]
        self._bounds = [piece["input_ids"].offsets.to_numpy() for piece in pieces]
        self._tokens = [piece["input_ids"].values.to_numpy() for piece in pieces]
        self._starts = np.cumsum([0, *map(len, self._labels)])
        self._order = np.arange(self._starts[-1])
        self._new_ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        position = self._order[index]
        piece = int(np.searchsorted(self._starts, position, side="right")) - 1
        row = position - self._starts[piece]
        start, end = self._bounds[piece][row : row + 2]
        tokens = self._tokens[piece][start:end]
        return {
            "input_ids": tokens if self._new_ids is None else self._new_ids[tokens],
            "labels": int(self._labels[piece][row]),
        }

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        lengths = np.concatenate([np.diff(bounds) for bounds in self._bounds])
        return np.asarray(lengths[self._order], dtype=np.int64)

    def used(self, vocabulary: int) -> NDArray[np.bool_]:
        """(vocabulary) bool: the ids that occur."""
        found = np.zeros(vocabulary, dtype=np.bool_)
        for tokens in self._tokens:
            found[tokens] = True
        return found

    def renumber(self, new_ids: NDArray[np.int64]) -> None:
        """Lets rows come with other ids from now on: ``new_ids[id]``."""
        self._new_ids = new_ids

    def sort_by_length(self) -> None:
        """Lets the shortest row come first from now on."""
        self._order = self._order[np.argsort(self.lengths(), kind="stable")]


class Dataset:
    """What a job trains on, and what it chooses its best epoch by.

    Args:
        uri: The snapshot's folder: train.parquet and validation.parquet with the columns text and label.
        work: A local folder for its files; what an earlier call has put there is used.

    Raises:
        TrainingError: a file is missing, empty or not what it should be, or there is nothing to tell apart.
    """

    def __init__(self, uri: str, work: Path) -> None:
        self.uri = uri.rstrip("/")
        self._work = work
        self._files = {split: self._fetch(split) for split in lake.SPLITS}
        labels = {split: self._labels(split) for split in lake.SPLITS}
        self.labels = sorted(labels["train"])  # the order of the logits
        if len(self.labels) < 2:
            raise TrainingError(
                f"{uri} has {len(self.labels)} label ({', '.join(self.labels)}): a classifier needs at least 2"
            )
        unknown = sorted(labels["validation"] - labels["train"])
        if unknown:
            raise TrainingError(f"{uri}: label {unknown[0]!r} is in validation.parquet but in no row of train.parquet")

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each split's file."""
        return {split: self._digest(split).hex() for split in lake.SPLITS}

    def _digest(self, split: str) -> bytes:
        with self._files[split].open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def _source(self, split: str) -> str:
        return f"{self.uri}/{split}.parquet"

    def _fetch(self, split: str) -> Path:
        path = self._work / f"{split}.parquet"
        try:
            if not path.exists():
                objects.download_file(self._source(split), path)
        except FileNotFoundError:
            raise TrainingError(f"no dataset: {self._source(split)} does not exist; build the snapshot again") from None
        return path

    def _pieces(self, split: str, columns: Sequence[str]) -> Iterator[list[list[str]]]:
        """The columns' values, some rows at a time; all of them strings."""
        uri, start = self._source(split), 0
        try:
            with parquet.ParquetFile(self._files[split]) as file:
                for piece in file.iter_batches(PIECE, columns=list(columns)):
                    values = [piece.column(name).cast(pa.string()).to_pylist() for name in columns]
                    for name, column in zip(columns, values, strict=True):
                        if None in column:
                            raise TrainingError(f"{uri}: row {start + column.index(None)} has no {name}")
                    start += len(piece)
                    yield values
        except (pa.ArrowException, KeyError) as error:
            raise TrainingError(f"{uri} is no Parquet file with the columns text and label: {error}") from error
        if not start:
            raise TrainingError(f"{uri} has no rows")

    def _labels(self, split: str) -> set[str]:
        return {label for (labels,) in self._pieces(split, ["label"]) for label in labels}

    def rows(self, tokenizer: Any, max_length: int) -> tuple[Rows, Rows]:
        """Token ids of training and validation, from the cache beside the snapshot or tokenised now.

        Args:
            tokenizer: Of the model.
            max_length: In tokens, special ones included; longer texts are cut.
        """
        # Before it is called: a call changes what it is saved with.
        tokenizing = _digest_of(tokenizer)
        train, validation = (self._rows(split, tokenizer, max_length, tokenizing) for split in lake.SPLITS)
        return train, validation

    def _rows(self, split: str, tokenizer: Any, max_length: int, tokenizing: bytes) -> Rows:
        path = self._work / f"{split}.arrow"
        if path.exists():
            return Rows(path)
        cached = f"{self.uri}/tokens/{self._key(split, tokenizing, max_length)}.arrow"
        rows = self._kept(cached, path, split)
        if rows is None:
            self._write(path, split, tokenizer, max_length)
            self._keep(path, cached)
            rows = Rows(path)
        return rows

    def _kept(self, uri: str, path: Path, split: str) -> Rows | None:
        """The cache's rows; none if it has none, or cannot be read: it saves time, and is never needed."""
        try:
            rows = Rows(objects.download_file(uri, path))
            expected = parquet.read_metadata(self._files[split]).num_rows
            if len(rows) != expected:
                raise ValueError(f"{len(rows)} rows in place of {expected}")
        except FileNotFoundError:
            return None
        except Exception as error:  # s3fs, botocore, aiohttp and pyarrow each raise their own
            logger.warning("token ids at %s cannot be used, the texts are tokenised again: %s", uri, error)
            return None
        logger.info("%s rows were tokenised before: %s", split, uri)
        return rows

    def _key(self, split: str, tokenizing: bytes, max_length: int) -> str:
        """The hash of all that decides the file: what the Parquet file says, the labels, the tokenizer."""
        content = self._digest(split)
        return hashlib.sha256(repr((FORMAT, max_length, self.labels)).encode() + tokenizing + content).hexdigest()[:16]

    def _write(self, path: Path, split: str, tokenizer: Any, max_length: int) -> None:
        schema = pa.schema({"input_ids": pa.list_(pa.int32()), "label": pa.int32()})
        index = {label: position for position, label in enumerate(self.labels)}
        with pa.ipc.new_file(str(path), schema) as file:
            for texts, labels in self._pieces(split, ["text", "label"]):
                columns = [tokenize(texts, tokenizer, max_length), [index[label] for label in labels]]
                arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
                file.write_batch(pa.record_batch(arrays, schema=schema))

    @staticmethod
    def _keep(path: Path, uri: str) -> None:
        try:
            objects.upload_file(path, uri)
        except Exception as error:  # s3fs, botocore and aiohttp each raise their own
            logger.warning("the token ids are not kept for the next job: %s", error)


def _digest_of(tokenizer: Any) -> bytes:
    digest = hashlib.sha256()
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*.*")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def tokenize(texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
    """Token ids of every text, special tokens included, cut to `max_length`."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=False
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
