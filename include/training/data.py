"""From a snapshot's Parquet files to token ids."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from include import lake
from include.training.errors import TrainingError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Split:
    """One file of a dataset: texts and their labels, row by row."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """What a job trains on, and what it chooses its best epoch by."""

    train: Split
    validation: Split
    labels: list[str]  # of the training rows, sorted: the order of the logits


def read_dataset(uri: str) -> Dataset:
    """Reads and checks train.parquet and validation.parquet.

    Args:
        uri: The snapshot's folder.

    Raises:
        TrainingError: a file is missing, empty or not what it should be, or there is nothing to tell apart.
    """
    train, validation = (_read_split(f"{uri.rstrip('/')}/{name}.parquet") for name in SPLITS)
    labels = sorted(set(train.labels))
    if len(labels) < 2:
        raise TrainingError(f"{uri} has {len(labels)} label ({', '.join(labels)}): a classifier needs at least 2")
    unknown = sorted(set(validation.labels) - set(labels))
    if unknown:
        raise TrainingError(f"{uri}: label {unknown[0]!r} is in validation.parquet but in no row of train.parquet")
    return Dataset(train, validation, labels)


def _read_split(uri: str) -> Split:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(lake.read_bytes(uri)), columns=["text", "label"])
    except FileNotFoundError:
        raise TrainingError(f"no dataset: {uri} does not exist; build the snapshot again") from None
    except pyarrow.ArrowException as error:
        raise TrainingError(f"{uri} is no Parquet file with the columns text and label: {error}") from error
    columns = [[_string(value) for value in table.column(name).to_pylist()] for name in ("text", "label")]
    for name, values in zip(("text", "label"), columns, strict=True):
        if None in values:
            raise TrainingError(f"{uri}: row {values.index(None)} has no {name}")
    if not columns[0]:
        raise TrainingError(f"{uri} has no rows")
    return Split(*columns)


def _string(value: Any) -> Any:
    return value if value is None else str(value)


def encode(split: Split, labels: Sequence[str], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """Token ids of every text, cut to a length, and the index of its label.

    Args:
        split: The rows.
        labels: Label names in the order of the logits.
        tokenizer: Of the model.
        max_length: In tokens, special ones included.

    Returns:
        One ``{"input_ids": […], "labels": int}`` per row, in the rows' order.
    """
    index = {label: position for position, label in enumerate(labels)}
    ids = tokenize(split.texts, tokenizer, max_length)
    return [{"input_ids": tokens, "labels": index[label]} for tokens, label in zip(ids, split.labels, strict=True)]


def tokenize(texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
    """Token ids of every text, special tokens included, cut to `max_length`."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=False
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
