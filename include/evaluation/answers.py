"""What each model answered to each golden row, kept as Parquet: any two versions can be compared without a model.

One row for each golden row and model: ``key`` (the golden row's own, else the SHA-256 of its text), ``label``,
``established``, ``model`` (challenger, champion or anchor), ``version`` (empty for a challenger: it has none yet),
``uri``, ``predicted``, ``confidence`` and ``text``, of which a long one is cut; files of earlier releases have none.

Beside it lies ``mistakes.json``: which labels the challenger confuses, with some of the texts.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from include.evaluation.mistakes import MISTAKES, Mistake, find_mistakes

if TYPE_CHECKING:
    import pandas as pd

FILE = "answers.parquet"
MODELS = ("challenger", "champion", "anchor")


class Answer(NamedTuple):
    """What one model answered to one golden row."""

    key: str
    label: str
    established: bool
    model: str
    version: str
    uri: str
    predicted: str
    confidence: float
    text: str = ""


def keys_of(texts: Sequence[str]) -> list[str]:
    """A key for golden rows that have none of their own."""
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def write_answers(answers: Sequence[Answer], folder: Path) -> Path:
    """Writes answers.parquet, and mistakes.json beside it, into a folder; returns the path of the first."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    pd.DataFrame(answers, columns=Answer._fields).to_parquet(path, index=False)
    mine = [
        Mistake(text=one.text, label=one.label, predicted=one.predicted, confidence=one.confidence)
        for one in answers
        if one.model == MODELS[0]
    ]
    (folder / MISTAKES).write_text(find_mistakes(mine).model_dump_json(), encoding="utf-8")
    return path


def read_answers(file: Path | BinaryIO, model: str) -> "pd.DataFrame":
    """One model's answers of an answers.parquet: ``model`` is challenger, champion, anchor, a version or a URI.

    Raises ValueError if it did not answer there.
    """
    import pandas as pd

    answers = pd.read_parquet(file)
    for column in ("model", "version", "uri"):
        if len(found := answers[answers[column] == model]):
            return found.drop_duplicates("key")
    there = answers.drop_duplicates("model")[["model", "version", "uri"]].to_dict("records")
    names = ", ".join(f"{one['model']} {one['version'] or one['uri']}" for one in there)
    raise ValueError(f"{model!r} did not answer in {getattr(file, 'name', 'these answers')}; there are: {names}")
