"""The data contract: which rows may be trained on, and for each other row the rule it breaks and the reason.

``check_frame`` judges a row by itself, some rows at a time; ``judging`` what only all rows together show.
"""
# ruff: noqa: TID253 - only imported inside tasks; pandas and numpy are what it is about

import re
import unicodedata
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from include.datasets.labels import Meaning, written

CHECKED = ["row", "text", "label", "rule", "reason", "extra", "key"]

Keys = "np.ndarray[tuple[int], np.dtype[np.uint64]]"

# Unicode's category Cf, which nobody sees. A set of ranges, since asking for each character's category takes as long as
# all the rest.
_INVISIBLE = re.compile(
    "[\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f]"
)
_NOT_ONE_SPACE = r"\s\s|[\t\n\v\f\r\x1c-\x1f]|^ | $"


def normalise(text: str) -> str:
    """The form in which two texts count as the same: Unicode NFKC, case folded, one space for any white space."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return " ".join(text.casefold().split())


def text_keys(texts: Any) -> "np.ndarray[Any, Any]":
    """A 64-bit number for each text's normalised form: (n,) strings in, (n,) uint64 out; 0 for a blank one.

    Among ten million texts, two different ones have the same number with a probability of 3 in a million.
    """
    array = texts if isinstance(texts, pa.Array) else pa.array(np.asarray(texts, object), pa.string())
    # Most texts are plain ASCII: for those it is enough to make them small, all at once.
    odd = pc.or_(pc.invert(pc.string_is_ascii(array)), pc.match_substring_regex(array, _NOT_ONE_SPACE))
    normalised = pc.ascii_lower(array).to_numpy(zero_copy_only=False)
    positions = np.flatnonzero(odd.to_numpy(zero_copy_only=False))
    normalised[positions] = [normalise(text) for text in array.take(pa.array(positions)).to_pylist()]
    keys = pd.util.hash_array(normalised, categorize=False)
    return np.where(normalised == "", np.uint64(0), keys)


def check_frame(frame: pd.DataFrame, max_characters: int) -> pd.DataFrame:
    """Judges rows as ``reading`` gives them, each by itself; the first rule that a row breaks is the one it is given.

    Returns the columns ``CHECKED``: ``text`` as a clean string, ``label`` as written (``labels.written``), ``rule`` and
    ``reason`` empty for a row that is good so far, and ``key`` (``text_keys``).
    """
    frame = frame.reset_index(drop=True)
    texts = _clean_texts(frame)
    garbled = pc.or_(pc.match_substring(texts, "\x00"), pc.match_substring(texts, "\ufffd"))
    _mark(frame, garbled, "wrong_encoding", "bytes that are not UTF-8, or NUL characters; save the file as UTF-8")
    limit = f"at most {max_characters:,} (BERT_MAX_TEXT_CHARACTERS)"
    too_long = pc.greater(pc.utf8_length(texts), max_characters)
    _mark(frame, too_long, "text_too_long", lambda row: f"{len(row.text):,} characters; {limit}")
    frame["key"] = text_keys(texts)
    _mark(frame, frame["key"].to_numpy() == 0, "text_empty", "the text is missing or blank")
    _write_labels(frame)
    return frame[CHECKED]


def _clean_texts(frame: pd.DataFrame) -> Any:
    """The texts as an Arrow array of valid strings; marks those that are none, and writes them so that one can look."""
    try:
        texts = pa.array(frame["text"].to_numpy(object), pa.string(), from_pandas=True)
    except (pa.ArrowException, UnicodeEncodeError):
        odd = [value is not None and (not isinstance(value, str) or _has_bytes(value)) for value in frame["text"]]
        missing = [isinstance(value, float) and value != value for value in frame["text"]]
        is_text = frame["text"].map(lambda value: isinstance(value, str))
        _mark(frame, np.array(odd) & ~np.array(missing) & ~is_text.to_numpy(), "text_not_a_string",
              lambda row: f"the text is a {type(row.text).__name__}")  # fmt: skip
        _mark(frame, np.array(odd) & is_text.to_numpy(), "wrong_encoding",
              "bytes that are not UTF-8, or NUL characters; save the file as UTF-8")  # fmt: skip
        shown = ["" if value is None or none else printable(str(value)) for value, none in zip(frame["text"], missing, strict=True)]  # noqa: E501 # fmt: skip
        texts = pa.array(shown, pa.string())
    texts = pc.fill_null(texts, "")
    if pc.any(pc.match_substring(texts, "\r")).as_py():
        # PostgreSQL's COPY takes no lone carriage return, and a line end is one whatever program wrote it.
        texts = pc.replace_substring_regex(texts, "\r\n?", "\n")
    frame["text"] = texts.to_numpy(zero_copy_only=False)
    return texts


def _write_labels(frame: pd.DataFrame) -> None:
    known: dict[str, str | Meaning] = {}
    labels: list[str] = []
    refused: dict[int, Meaning] = {}
    for at, value in enumerate(frame["label"].tolist()):
        if isinstance(value, str):
            label = known.get(value)
            if label is None:
                label = known[value] = _written(value)
        else:
            label = written(value)
        if isinstance(label, Meaning):
            refused[at] = label
            label = label.label
        labels.append(label)
    frame["label"] = np.array(labels, object)
    for at, meaning in refused.items():
        if not frame.at[at, "rule"]:
            frame.at[at, "rule"], frame.at[at, "reason"] = meaning.rule, meaning.reason
            frame.at[at, "label"] = printable(meaning.label)


def _written(value: str) -> str | Meaning:
    label = written(value)
    if isinstance(label, str) and (_has_bytes(label) or "\x00" in label or "\ufffd" in label):
        reason = "the label has bytes that are not UTF-8, or NUL characters; save the file as UTF-8"
        return Meaning(printable(label), "wrong_encoding", reason)
    return label


def _has_bytes(text: str) -> bool:
    """Whether a text holds bytes that were no UTF-8: they are surrogates."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def printable(text: str) -> str:
    r"""A text with undecodable bytes as something to look at: ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode()


def _mark(frame: pd.DataFrame, broken: Any, rule: str, reason: str | Callable[[Any], str]) -> None:
    """Gives the rule to the broken rows that have none yet; ``reason`` is a text or makes one from a row."""
    mask = broken.to_numpy(zero_copy_only=False) if isinstance(broken, pa.Array) else np.asarray(broken)
    rows = frame.index[mask.astype(bool) & (frame["rule"].to_numpy() == "")]
    if len(rows) == 0:
        return
    frame.loc[rows, "rule"] = rule
    if isinstance(reason, str):
        frame.loc[rows, "reason"] = reason
    else:
        frame.loc[rows, "reason"] = [reason(row) for row in frame.loc[rows].itertuples()]


def check_rows(
    rows: pd.DataFrame,
    *,
    allowed_labels: Collection[str] | None,
    max_characters: int,
    min_rows_per_label: int,
    golden_texts: Collection[str] = (),
    known: pd.Series | None = None,
) -> pd.DataFrame:
    """Judges the rows of one file that is small enough for it, as an intake would.

    ``rows`` is what ``reading.read_rows`` returns. ``allowed_labels`` None welcomes any. A label that is not ``known``
    yet needs ``min_rows_per_label`` good rows. ``golden_texts`` are normalised; ``known`` maps normalised text to the
    label it is already trained with. Returns the rows with ``text`` and ``label`` clean, and ``rule`` and ``reason``
    filled; empty, the row is good.
    """
    from include.datasets.judging import Known, judge

    checked = check_frame(rows if "extra" in rows else rows.assign(extra=""), max_characters).assign(file=0)
    trained = Known.of([] if known is None else list(known.index), [] if known is None else list(known))
    judge(
        checked,
        [str(rows["file"].iloc[0])] if len(rows) else [],
        allowed_labels=allowed_labels,
        min_rows_per_label=min_rows_per_label,
        golden_keys=text_keys(list(golden_texts)),
        known=trained,
    )
    return checked.assign(file=rows["file"].to_numpy())
