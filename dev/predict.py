"""A file's texts labelled by the champion, without a server: ``python -m dev.predict FILE OUT``."""

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from dev.stack import Stack
from dev.state import DEFAULT_STATE
from include.settings import settings

console = Console(highlight=False)

PIECE = 4096  # rows in memory
COLUMNS = ("label", "probability", "second", "second_probability")


def texts_of(file: Path, column: str) -> Iterator[list[str]]:
    """A CSV, TSV, JSON Lines or Parquet file's texts, in pieces. Raises ValueError with what is missing."""
    from include.serving.batch import tables_of, text_column

    for table in tables_of(file, PIECE):
        texts = table[text_column(table.column_names, column)].to_pylist()
        yield ["" if text is None else str(text) for text in texts]


def predict(file: Path, out: Path, model: str, version: str | None, column: str) -> int:
    """Writes each text with its label, the second best, and how probable they are; returns the number of texts.

    The file appears whole or not at all. Raises ValueError if there is no such version, or no text column.
    """
    from include import objects
    from include.registry import models
    from include.training.scoring import Scorer

    found = models.by_version(model, version) if version else models.by_alias(model, models.CHAMPION)
    if found is None:
        raise ValueError(f"{model} has no {f'version {version}' if version else 'champion yet'}")
    with objects.local(found.uri) as folder:
        scorer = Scorer(str(folder))
    console.print(f"{model} version {found.version}: {len(scorer.labels)} labels", markup=False)
    count = 0
    coming = out.with_name(f".{out.name}.coming")
    try:
        with coming.open("w", newline="", encoding="utf-8") as target:
            writer = csv.writer(target)
            writer.writerow(("text", *COLUMNS))
            for texts in texts_of(file, column):
                probabilities = scorer.probabilities(scorer.tokenize(texts))
                for text, row in zip(texts, probabilities, strict=True):
                    best, second = (-row).argsort()[:2]
                    cells = [(scorer.labels[index], f"{row[index]:.4f}") for index in (best, second)]
                    writer.writerow((text, *cells[0], *cells[1]))
                count += len(texts)
                if console.is_terminal:
                    console.print(f"  {count:,} texts", end="\r", markup=False)
        coming.replace(out)
    finally:
        coming.unlink(missing_ok=True)
    return count


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.predict", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="the stack's folder (%(default)s)")
    parser.add_argument("--version", help="of the registered model; by default the champion")
    parser.add_argument("--text", default="", help="name of the text column, if it is not a usual one")
    options = parser.parse_args(arguments)
    try:
        os.environ.update(Stack(options.state).env)
        settings.cache_clear()
        config = settings()
        column = options.text or config.text_column
        begun = time.monotonic()
        count = predict(options.file, options.out, config.model_name, options.version, column)
        seconds = time.monotonic() - begun
    except (OSError, ValueError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    console.print(f"{count:,} texts are labelled in {options.out}, {seconds:.1f} s", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
