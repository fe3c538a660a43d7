"""The data contract: which rows may be trained on, and for each other row the rule it breaks and the reason."""
# ruff: noqa: TID253 - only imported inside tasks; pandas is what it is about

import re
import unicodedata
from collections.abc import Collection
from typing import Any

import pandas as pd


def normalise(text: str) -> str:
    """The form in which two texts count as the same: Unicode NFKC, case folded, one space for any white space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(text.casefold().split())


def check_rows(
    rows: pd.DataFrame,
    *,
    allowed_labels: Collection[str] | None,
    max_characters: int,
    min_rows_per_label: int,
    golden_texts: Collection[str] = (),
    known: pd.Series | None = None,
) -> pd.DataFrame:
    """Judges every row; the first rule that a row breaks is the one it is given.

    ``rows`` is what ``reading.read_rows`` returns, of one file or several after each other. ``allowed_labels`` None
    welcomes any. A label that is not ``known`` yet needs ``min_rows_per_label`` good rows. ``golden_texts`` are
    normalised; ``known`` maps normalised text to the label it is already trained with. Returns the rows with ``text``
    and ``label`` as clean strings, a column ``normalised``, and ``rule`` and ``reason`` filled; empty, the row is good.
    """
    frame = rows.copy()
    frame["rule"], frame["reason"] = frame["rule"].fillna(""), frame["reason"].fillna("")
    _check_texts(frame, max_characters)
    _check_labels(frame, allowed_labels)
    _mark_contradictions(frame)
    _mark_duplicates(frame)
    golden = frame["normalised"].isin(set(golden_texts))
    _mark(frame, golden, "in_golden_set", "the text is in the frozen golden set, which is never trained on")
    if known is not None:
        same = frame["normalised"].map(known) == frame["label"]
        _mark(frame, same, "already_known", "the champion's dataset has this text with this label")
    _mark_rare_labels(frame, min_rows_per_label, set() if known is None else set(known))
    return frame


def _check_texts(frame: pd.DataFrame, max_characters: int) -> None:
    """Cleans text and label into strings, and checks what the text says by itself."""
    is_text = frame["text"].map(lambda value: value is None or isinstance(value, str))
    _mark(frame, ~is_text, "text_not_a_string", lambda row: f"the text is a {type(row.text).__name__}")
    # PostgreSQL's COPY takes no lone carriage return, and a line end is one whatever program wrote it.
    frame["text"] = frame["text"].map(lambda value: "" if value is None else re.sub(r"\r\n?", "\n", str(value)))
    is_value = frame["label"].map(lambda value: not isinstance(value, list | tuple | dict | set | bytes))
    _mark(frame, ~is_value, "label_not_a_value", lambda row: f"the label is a {type(row.label).__name__}")
    frame["label"] = frame["label"].map(_label)

    garbled = (frame["text"] + frame["label"]).map(_garbled)
    _mark(frame, garbled, "wrong_encoding", "bytes that are not UTF-8, or NUL characters; save the file as UTF-8")

    limit = f"at most {max_characters:,} (BERT_MAX_TEXT_CHARACTERS)"
    too_long = frame["text"].str.len() > max_characters
    _mark(frame, too_long, "text_too_long", lambda row: f"{len(row.text):,} characters; {limit}")

    readable = frame["rule"] == ""
    frame["normalised"] = frame["text"].where(readable, "").map(normalise)
    _mark(frame, frame["normalised"] == "", "text_empty", "the text is missing or blank")


def _check_labels(frame: pd.DataFrame, allowed: Collection[str] | None) -> None:
    _mark(frame, frame["label"] == "", "label_missing", "the label is missing or blank")
    if allowed is not None:
        known = f"is not one of the model's {len(allowed)} (BERT_LABELS can widen them)"
        unknown = ~frame["label"].isin(set(allowed))
        _mark(frame, unknown, "label_unknown", lambda row: f"label {row.label[:80]!r} {known}")


def _label(value: Any) -> str:
    """A label as a string: 1, 1.0 and "1" are the same one."""
    if value is None or value is pd.NaT or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(str(value).split())


def _garbled(text: str) -> bool:
    """Whether a text holds undecodable bytes (surrogates), replacement characters or NUL."""
    if text.isascii():
        return "\x00" in text
    return any("\ud800" <= character <= "\udfff" or character in "\x00\ufffd" for character in text)


def _mark_contradictions(frame: pd.DataFrame) -> None:
    """Marks every row of a text that comes with more than one label: nobody can say which one is right."""
    labels = frame[frame["rule"] == ""].groupby("normalised")["label"].unique()
    labels = labels[labels.map(len) > 1]
    contradictory = frame["normalised"].isin(labels.index)
    _mark(frame, contradictory, "contradictory_label", lambda row: (
        f"the same text comes with the labels {', '.join(sorted(labels[row.normalised])[:5])}"
    ))  # fmt: skip


def _mark_duplicates(frame: pd.DataFrame) -> None:
    good = frame["rule"] == ""
    again = good & frame["normalised"].where(good).duplicated()
    _mark(frame, again, "duplicate", "the same text and label came before")


def _mark_rare_labels(frame: pd.DataFrame, minimum: int, trained: set[str]) -> None:
    """Marks labels that are new, and too few to be split into training, validation and golden rows."""
    counts = frame.loc[frame["rule"] == "", "label"].value_counts()
    rare = (frame["label"].map(counts).fillna(0) < minimum) & ~frame["label"].isin(trained)
    _mark(frame, rare, "label_too_rare", lambda row: (
        f"label {row.label[:80]!r} has {counts.get(row.label, 0)} good rows; "
        f"{minimum} are needed (BERT_MIN_ROWS_PER_LABEL)"
    ))  # fmt: skip


def _mark(frame: pd.DataFrame, broken: pd.Series, rule: str, reason: Any) -> None:
    """Gives the rule to the broken rows that have none yet; ``reason`` is a text or makes one from a row."""
    rows = frame.index[broken.astype(bool) & (frame["rule"] == "")]
    if len(rows) == 0:
        return
    frame.loc[rows, "rule"] = rule
    if isinstance(reason, str):
        frame.loc[rows, "reason"] = reason
    else:
        frame.loc[rows, "reason"] = [reason(row) for row in frame.loc[rows].itertuples()]
