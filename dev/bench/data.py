"""The labelled texts of the benchmark, in the layouts that both sides read."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dev.sample_data import MADE_UP_ROWS, labelled_file, messages

SEED = 7
TEST_SHARE = 0.2  # of the rows where no file to test on is given


@dataclass(frozen=True)
class Texts:
    """Labelled rows, columns text and label, in random order."""

    source: str
    train: pd.DataFrame
    test: pd.DataFrame

    def workload(self, folder: Path, texts: int, validation_texts: int) -> Path:
        """Saves some training rows and some others to validate on.

        Args:
            folder: Gets train and validation, each as .csv (run_classification's columns) and .parquet (ours).
            texts: Rows to train on; fewer if there are fewer.
            validation_texts: Rows after those; their labels all occur among the first.

        Returns:
            The folder.
        """
        texts = min(texts, len(self.train) - validation_texts)
        train = self.train[:texts]
        rest = self.train[texts:]
        validation = rest[rest["label"].isin(train["label"])][:validation_texts]
        return save(folder, train, validation)


def load(data: Path | None, test: Path | None) -> Texts:
    """The user's files, or made-up messages where no file is named.

    Raises FileNotFoundError, UnreadableFileError and ValueError if a file is no table of enough labelled texts.
    """
    rows = _shuffled(labelled_file(data) if data else messages(MADE_UP_ROWS))
    source = f"{data.parent.name}/{data.name}" if data else "made-up messages"
    if test:
        return Texts(source, rows, _shuffled(labelled_file(test)))
    held_out = int(len(rows) * TEST_SHARE)
    return Texts(source, rows[held_out:], rows[:held_out])


def save(folder: Path, train: pd.DataFrame, validation: pd.DataFrame) -> Path:
    """Writes both splits in both layouts; returns the folder."""
    folder.mkdir(parents=True)
    for name, rows in (("train", train), ("validation", validation)):
        rows.rename(columns={"text": "sentence"}).to_csv(folder / f"{name}.csv", index=False)
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def read(workload: Path, split: str) -> pd.DataFrame:
    """The rows of a workload's train or validation."""
    return pd.read_parquet(workload / f"{split}.parquet")


def token_lengths(texts: pd.Series, model: Path, max_length: int) -> list[int]:
    """Lengths in tokens, special ones included, after cutting."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    encoded = tokenizer.encode_batch(list(texts))
    return [len(text.ids) for text in encoded]


def repeated(texts: list[str], count: int) -> list[str]:
    """So many texts, from the beginning again if there are fewer."""
    return (texts * math.ceil(count / len(texts)))[:count]


def _shuffled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sample(frac=1, random_state=SEED, ignore_index=True)
