"""What came on a day, in numbers: rows of a source, their labels, lengths, languages, tokens.

A profile is small and kept, so that a day can be compared with the weeks before it without their texts.
"""
# ruff: noqa: TID253 - frames are what this module is about

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel

from include import lake, objects

Name = Literal["uploads", "training_examples", "predictions"]
SOURCES: tuple[Name, ...] = ("uploads", "training_examples", "predictions")
PAST_DAYS = 28
KEPT_LENGTHS = 500  # of a day
LOOKED_AT = 400  # texts whose language is told, which takes a millisecond each
SHORTEST_FOR_LANGUAGE = 20  # characters
UNSURE = 0.5  # an answer with less confidence


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of a source that came on a day.

    Args:
        source: where from.
        rows: all that came.
        frame: those that are looked at: ``text`` and ``label``; of predictions also ``probability``, ``cut``,
            ``latency_ms`` and ``text_hash``.
        counts: what else was counted, of all rows: of uploads ``rejected``, ``duplicates``, ``files``, ``unreadable``.
    """

    source: Name
    rows: int
    frame: pd.DataFrame
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def texts_kept(self) -> bool:
        """Whether the source has texts; the prediction log may have none (BERT_LOG_TEXTS)."""
        return self.source != "predictions" or not len(self.frame) or bool(self.frame["text"].notna().any())


class Profile(BaseModel):
    """A source's day in numbers; of ``looked_at`` rows, but for ``rows`` and ``counts``, which are of all."""

    rows: int = 0
    looked_at: int = 0
    counts: dict[str, int] = {}
    texts_kept: bool = True
    empty_texts: int = 0
    missing_labels: int = 0
    labels: dict[str, int] = {}
    lengths: list[int] = []  # characters, of some texts
    languages: dict[str, int] = {}
    words: int = 0
    pieces: int = 0
    unknown: int = 0  # of the pieces, those that the tokenizer has no word for
    cut: int = 0
    repeated: int = 0  # rows with the text that is the most frequent
    confidence: float | None = None  # the mean
    unsure: int = 0
    latency_ms: float | None = None  # the 95th percentile


Profiles = dict[Name, Profile]


class Tokenizer:
    """A champion's, which needs nothing of the model but one file."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Fast

        self._fast = Fast.from_file(str(path))
        self._fast.no_padding()
        self._fast.no_truncation()
        unknown = getattr(self._fast.model, "unk_token", None)
        self._unknown = None if unknown is None else self._fast.token_to_id(unknown)

    def count(self, texts: Sequence[str]) -> tuple[int, int, int]:
        """Words, pieces of words, and those of them that are unknown."""
        words = pieces = unknown = 0
        for one in self._fast.encode_batch(list(texts), add_special_tokens=False):
            words += len({at for at in one.word_ids if at is not None})
            pieces += len(one.ids)
            unknown += sum(at == self._unknown for at in one.ids)
        return words, pieces, unknown


@contextmanager
def tokenizer_at(model_uri: str) -> Iterator[Tokenizer | None]:
    """The tokenizer of the model at a URI; None if it is not one file, ``tokenizer.json``."""
    uri = f"{model_uri.rstrip('/')}/tokenizer.json"
    if not objects.exists(uri):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Tokenizer(objects.download_file(uri, Path(folder) / "tokenizer.json"))


def profile(sample: Sample, tokenizer: Tokenizer | None) -> Profile:
    """A sample in numbers; any frame will do, also one without rows."""
    frame = sample.frame
    texts, labels = frame["text"], frame["label"]
    known = [text for text in texts if isinstance(text, str) and text.strip()]
    some = random.Random(0).sample(known, min(LOOKED_AT, len(known)))
    words, pieces, unknown = tokenizer.count(some) if tokenizer and some else (0, 0, 0)
    kept = sample.texts_kept
    of_predictions: dict[str, Any] = {}
    if sample.source == "predictions" and len(frame):
        of_predictions = {
            "cut": int(frame["cut"].fillna(False).astype(bool).sum()),
            "confidence": _number(frame["probability"].mean()),
            "unsure": int((frame["probability"] < UNSURE).sum()),
            "latency_ms": _number(frame["latency_ms"].quantile(0.95)),
        }
    hashes = frame["text_hash"] if "text_hash" in frame and not known else pd.Series(known, dtype=object)
    return Profile(
        rows=sample.rows,
        looked_at=len(frame),
        counts=sample.counts,
        texts_kept=kept,
        empty_texts=len(frame) - len(known) if kept else 0,
        missing_labels=sum(not isinstance(label, str) or not label.strip() for label in labels),
        labels={str(label): int(count) for label, count in labels.value_counts().items()},
        lengths=[len(text) for text in random.Random(1).sample(known, min(KEPT_LENGTHS, len(known)))],
        languages=_languages(some),
        words=words,
        pieces=pieces,
        unknown=unknown,
        repeated=int(hashes.value_counts().max()) if hashes.notna().any() else 0,
        **of_predictions,
    )


def keep(model: str, day: date, profiles: Profiles) -> None:
    """Keeps a day's profiles, in place of what was kept of it."""
    objects.write_json(
        lake.monitoring(model, f"facts/{day}.json"), {name: one.model_dump() for name, one in profiles.items()}
    )


def kept(model: str, day: date) -> Profiles:
    """A day's profiles; empty ones if none were kept."""
    uri = lake.monitoring(model, f"facts/{day}.json")
    found = objects.read_json(uri) if objects.exists(uri) else {}
    return {name: Profile.model_validate(found.get(name, {})) for name in SOURCES}


def past(model: str, day: date) -> list[Profiles]:
    """The profiles of the four weeks before a day, as far as they were kept, the oldest first."""
    first = day - timedelta(days=PAST_DAYS)
    names = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in objects.find(lake.monitoring(model, "facts/"))]
    return [
        kept(model, date.fromisoformat(name)) for name in sorted(names) if first.isoformat() <= name < day.isoformat()
    ]


def together(profiles: Sequence[Profile]) -> Profile:
    """Several days of one source as one."""
    labels, languages = Counter[str](), Counter[str]()
    for one in profiles:
        labels.update(one.labels)
        languages.update(one.languages)
    return Profile(
        rows=sum(one.rows for one in profiles),
        looked_at=sum(one.looked_at for one in profiles),
        labels=dict(labels),
        lengths=[length for one in profiles for length in one.lengths],
        languages=dict(languages),
        words=sum(one.words for one in profiles),
        pieces=sum(one.pieces for one in profiles),
        unknown=sum(one.unknown for one in profiles),
    )


def _languages(texts: Sequence[str]) -> dict[str, int]:
    from include.ingestion.quality import language_of

    found = Counter(language_of(text) for text in texts if len(text) >= SHORTEST_FOR_LANGUAGE)
    found.pop("", None)
    return dict(found.most_common())


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
