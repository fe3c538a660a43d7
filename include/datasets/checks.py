"""The data contract: which rows may be trained on, and for each other row the rule it breaks and the reason.

``check_frame`` judges a row by itself, some rows at a time; ``judging`` what only all rows together show.
"""
# ruff: noqa: TID253 - only imported inside tasks; pandas and numpy are what it is about

import hashlib
import json
import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from include.datasets.labels import Meaning, written
from include.datasets.reading.table import printable

CHECKED = pa.schema(
    [
        ("row", pa.int64()),
        *((name, pa.string()) for name in ("text", "label", "rule", "reason", "extra")),
        ("key", pa.uint64()),
    ]
)

IN_LABEL = "in its label"
_NOT_UTF8 = "bytes that are not UTF-8, or NUL characters; save the file as UTF-8"

# Unicode's category Cf, which nobody sees. Asking for each character's category would take as long as all the rest.
_INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2),
        (0x180E, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0xFEFF, 0xFEFF),
        (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x13438), (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A), (0xE0001, 0xE0001), (0xE0020, 0xE007F),
    )
    for code in range(first, last + 1)
)  # fmt: skip
_BLANK = xxh3_64_intdigest(b"")
_TIDY = b" " + bytes(range(33, 256))  # bytes of texts whose white space is all spaces


def normalise(text: str) -> str:
    """The form in which two texts count as the same: Unicode NFKC, case folded, one space for any white space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        if not _INVISIBLE.isdisjoint(text):
            text = "".join(character for character in text if character not in _INVISIBLE)
    return " ".join(text.casefold().split())


def text_keys(texts: Any) -> "np.ndarray[Any, Any]":
    """A 64-bit number for each text's normalised form: (n,) strings in, (n,) uint64 out; 0 for a blank one.

    Among ten million texts, two different ones have the same number with a probability of 3 in a million.
    """
    array = texts if isinstance(texts, pa.Array) else pa.array(np.asarray(texts, object), pa.string())
    everything = content(array)
    # Most texts are plain ASCII with single spaces: for those it is enough to make them small, all at once.
    odd = pc.or_(pc.starts_with(array, " "), pc.ends_with(array, " "))
    if not everything.isascii():
        odd = pc.or_(odd, pc.invert(pc.string_is_ascii(array)))
    spaces = np.frombuffer(everything, np.uint8) == ord(" ")
    if (spaces[1:] & spaces[:-1]).any():
        odd = pc.or_(odd, pc.match_substring(array, "  "))
    if everything.translate(None, _TIDY):
        odd = pc.or_(odd, pc.match_substring_regex(array, r"[\x00-\x1f]"))
    normalised = pc.ascii_lower(array).cast(pa.binary()).to_numpy(zero_copy_only=False)
    for at in np.flatnonzero(odd.to_numpy(zero_copy_only=False)).tolist():
        normalised[at] = normalise(array[at].as_py()).encode()
    keys = np.fromiter(map(xxh3_64_intdigest, normalised), np.uint64, len(normalised))
    keys[keys == _BLANK] = 0
    return keys


def rows_hash(keys: Any, labels: Mapping[Any, int]) -> str:
    """A hash of rows in whatever order: of their ``text_keys``, and of how many rows each label has."""
    digest = hashlib.sha256(json.dumps(sorted((str(label), int(n)) for label, n in labels.items())).encode())
    digest.update(np.asarray(keys, np.uint64).sum(dtype=np.uint64).tobytes())
    return f"{len(keys)}-{digest.hexdigest()[:32]}"


def content(array: Any) -> bytes:
    """The bytes of all strings of an Arrow array, one after the other."""
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    return bytes(array.buffers()[2][int(offsets[0]) : int(offsets[-1])]) if array.buffers()[2] and len(array) else b""


def check_frame(frame: pd.DataFrame, max_characters: int) -> pa.Table:
    """Judges rows as ``reading`` gives them, each by itself; the first rule that a row breaks is the one it is given.

    Returns the columns of ``CHECKED``: ``text`` as a clean string, ``label`` as written (``labels.written``), ``rule``
    and ``reason`` empty for a row that is good so far, and ``key`` (``text_keys``).
    """
    verdicts = _Verdicts(frame)
    texts = _clean_texts(frame["text"], verdicts)
    everything = content(texts)
    if b"\x00" in everything or b"\xef\xbf\xbd" in everything:
        garbled = pc.or_(pc.match_substring(texts, "\x00"), pc.match_substring(texts, "\ufffd"))
        verdicts.mark(garbled, "wrong_encoding", _NOT_UTF8)
    if len(frame) and pc.max(pc.binary_length(texts)).as_py() > max_characters:
        lengths = pc.utf8_length(texts)
        limit = f"at most {max_characters:,} (BERT_MAX_TEXT_CHARACTERS)"
        verdicts.mark(
            pc.greater(lengths, max_characters),
            "text_too_long",
            lambda at: f"{lengths[at].as_py():,} characters; {limit}",
        )
    keys = text_keys(texts)
    verdicts.mark(keys == 0, "text_empty", "the text is missing or blank")
    labels = _write_labels(frame["label"], verdicts)
    columns = [frame["row"].to_numpy(), texts, labels, *verdicts.columns(), pa.array(frame["extra"], pa.string()), keys]
    return pa.table(columns, schema=CHECKED)


class _Verdicts:
    """The rule and reason of each row; most have none."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.size = len(frame)
        rules, reasons = frame["rule"].to_numpy(object), frame["reason"].to_numpy(object)
        broken = np.flatnonzero(rules != "").tolist()
        self.found: dict[int, tuple[str, str]] = {at: (rules[at], reasons[at]) for at in broken}

    def mark(self, broken: Any, rule: str, reason: str | Callable[[int], str]) -> None:
        """Gives the rule to the broken rows that have none yet; ``reason`` is a text, or makes one from a number."""
        mask = broken.to_numpy(zero_copy_only=False) if isinstance(broken, pa.Array) else np.asarray(broken)
        for at in np.flatnonzero(mask).tolist():
            self.give(at, rule, reason)

    def give(self, at: int, rule: str, reason: str | Callable[[int], str]) -> None:
        """Gives a row the rule if it has none yet."""
        if at not in self.found:
            self.found[at] = (rule, reason if isinstance(reason, str) else reason(at))

    def columns(self) -> list[Any]:
        """Rules and reasons as Arrow arrays."""
        if not self.found:
            return [pa.repeat(pa.scalar("", pa.string()), self.size)] * 2
        columns = [[""] * self.size, [""] * self.size]
        for at, verdict in self.found.items():
            columns[0][at], columns[1][at] = verdict
        return [pa.array(column, pa.string()) for column in columns]


def _clean_texts(texts: "pd.Series[Any]", verdicts: _Verdicts) -> Any:
    """The texts as an Arrow array of valid strings; marks those that are none, and writes them so that one can look."""
    try:
        array = pa.array(texts, pa.string(), from_pandas=True)
    except (pa.ArrowException, UnicodeEncodeError):
        array = pa.array([_as_text(at, value, verdicts) for at, value in enumerate(texts)], pa.string())
    array = pc.fill_null(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array, "")
    if b"\r" in content(array):
        # PostgreSQL's COPY takes no lone carriage return, and a line end is one whatever program wrote it.
        array = pc.replace_substring_regex(array, "\r\n?", "\n")
    return array


def _as_text(at: int, value: Any, verdicts: _Verdicts) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if not isinstance(value, str):
        verdicts.give(at, "text_not_a_string", f"the text is a {type(value).__name__}")
    elif _has_bytes(value):
        verdicts.give(at, "wrong_encoding", _NOT_UTF8)
    return printable(str(value))


def _write_labels(labels: "pd.Series[Any]", verdicts: _Verdicts) -> Any:
    """The labels as written, as an Arrow array; marks those that cannot be one."""
    if isinstance(labels.dtype, pd.ArrowDtype):
        array = pa.array(labels)
        encoded = (array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array).dictionary_encode()
        codes, values = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    else:
        codes, values = np.arange(len(labels)), labels.tolist()
    known: dict[str, str | Meaning] = {}
    result = []
    for code, value in enumerate(values):
        if isinstance(value, str):
            if value not in known:
                known[value] = _written(value)
            label = known[value]
        else:
            label = written(value)
        if isinstance(label, Meaning):
            for at in np.flatnonzero(codes == code).tolist():
                verdicts.give(at, label.rule, label.reason)
            label = printable(label.label)
        result.append(label)
    return pa.array(result, pa.string()).take(pa.array(codes))


def _written(value: str) -> str | Meaning:
    label = written(value)
    if isinstance(label, str) and (_has_bytes(label) or "\x00" in label or "\ufffd" in label):
        return Meaning(printable(label), "wrong_encoding", f"{IN_LABEL}, {_NOT_UTF8}")
    return label


def _has_bytes(text: str) -> bool:
    """Whether a text holds bytes that were no UTF-8: they are surrogates."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def check_rows(
    rows: pd.DataFrame,
    *,
    allowed_labels: Collection[str] | None,
    max_characters: int,
    min_rows_per_label: int,
    golden: pd.Series | None = None,
    known: pd.Series | None = None,
    mapping: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Judges the rows of one file that is small enough for it, as an intake would.

    ``rows`` is what ``reading.read_rows`` returns. ``allowed_labels`` None welcomes any. A label that is not ``known``
    yet needs ``min_rows_per_label`` good rows. ``golden`` and ``known`` map normalised texts to the labels that they
    are tested and trained with; by ``mapping`` an old name of a label counts as the new one. Returns the rows with
    ``text`` and ``label`` clean, and ``rule`` and ``reason`` filled; empty, the row is good.
    """
    from include.datasets.judging import Known, Labels, Rows, judge

    frame = rows if "extra" in rows else rows.assign(extra="")
    checked: pd.DataFrame = check_frame(frame, max_characters).to_pandas()
    codes, names = pd.factorize(checked["label"].to_numpy(object))
    rules, reasons = [str(rule) for rule in checked["rule"]], [str(reason) for reason in checked["reason"]]
    judged = Rows(
        files=[str(rows["file"].iloc[0])] if len(rows) else [],
        file=np.zeros(len(checked), np.int32),
        number=checked["row"].to_numpy(),
        key=checked["key"].to_numpy(),
        label=codes,
        names=list(names),
        broken={at: pair for at, pair in enumerate(zip(rules, reasons, strict=True)) if pair[0]},
    )
    judge(
        judged,
        labels=Labels(allowed_labels, min_rows_per_label, mapping=mapping or {}),
        golden=Known.of([] if golden is None else list(golden.index), [] if golden is None else list(golden)),
        known=Known.of([] if known is None else list(known.index), [] if known is None else list(known)),
    )
    verdicts = [judged.broken.get(at, ("", "")) for at in range(len(checked))]
    return checked.assign(
        file=rows["file"].to_numpy(),
        label=[judged.names[code] for code in judged.label],
        rule=[rule for rule, _ in verdicts],
        reason=[reason for _, reason in verdicts],
    )
