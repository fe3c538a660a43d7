"""What only all rows of an intake together show: contradictions, repetitions, what is known, and odd labels."""
# ruff: noqa: TID253 - only imported inside tasks; pandas and numpy are what it is about

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from include.datasets.checks import text_keys
from include.datasets.labels import Vocabulary

FEWEST_SHARED = 10  # texts; a file that shares fewer with others is not judged by them
MOST_DIFFERENT = 0.2  # of the texts that a file shares with others


@dataclass(frozen=True)
class Known:
    """The rows that are trained with already, in the order of their keys; ``sources`` say where each came from."""

    keys: "np.ndarray[Any, Any]"
    labels: "np.ndarray[Any, Any]"
    sources: "np.ndarray[Any, Any]"

    @classmethod
    def of(cls, texts: Any, labels: Any, sources: Any = None) -> "Known":
        """From n texts, which need not be normalised, and their labels and sources."""
        keys = text_keys(texts)
        order = np.argsort(keys, kind="stable")
        where = np.array(sources if sources is not None else [""] * len(keys), object)
        return cls(keys[order], np.array(labels, object)[order], where[order])

    def find(self, keys: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Where each key stands, -1 if it is not known."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)


def judge(
    rows: pd.DataFrame,
    files: Sequence[str],
    *,
    allowed_labels: Collection[str] | None,
    min_rows_per_label: int,
    golden_keys: "np.ndarray[Any, Any]",
    known: Known,
) -> dict[int, str]:
    """Fills ``label``, ``rule``, ``reason`` and ``good`` in place; a row is given the first rule that it breaks.

    ``rows`` has the columns file (an index of ``files``), row, key, label (as written; categorical afterwards), rule
    and reason, in the order of files and rows, and a plain index. Returns warnings by file: those whose rows are set
    aside as a whole.
    """
    rows["good"] = rows["rule"].to_numpy(object) == ""
    _resolve_labels(rows, allowed_labels)
    warnings = _mark_contradictory_files(rows, files)
    _mark_repetitions(rows, files)
    golden = np.isin(rows["key"].to_numpy(), golden_keys)
    _mark(rows, golden, "in_golden_set", "the text is in the frozen golden set, which is never trained on")
    found = known.find(rows["key"].to_numpy())
    codes = dict(zip(rows["label"].cat.categories, range(len(rows["label"].cat.categories)), strict=True))
    trained = np.array([codes.get(label, -1) for label in known.labels], int)
    same = found >= 0
    same[same] = trained[found[same]] == rows["label"].cat.codes.to_numpy()[same]
    _mark(rows, same, "already_known", [_known_reason(known.sources[at]) for at in found[same & _good(rows)]])
    _mark_rare_labels(rows, min_rows_per_label, set(known.labels))
    return warnings


def _good(rows: pd.DataFrame) -> "np.ndarray[Any, Any]":
    good: np.ndarray[Any, Any] = rows["good"].to_numpy()
    return good


def _mark(rows: pd.DataFrame, broken: "np.ndarray[Any, Any]", rule: str, reasons: str | Sequence[str]) -> None:
    """Gives the rule to the broken rows that have none yet; ``reasons`` is one for all, or one for each of those."""
    chosen = np.flatnonzero(broken & _good(rows))
    if not len(chosen):
        return
    rows["rule"].array[chosen] = rule
    rows["reason"].array[chosen] = reasons if isinstance(reasons, str) else np.array(reasons, object)
    rows["good"].array[chosen] = False


def _known_reason(source: str) -> str:
    return f"the champion's dataset has this text with this label{f', from {source}' if source else ''}"


def _resolve_labels(rows: pd.DataFrame, allowed: Collection[str] | None) -> None:
    """Replaces the labels by what they mean, as a categorical column; those of bad rows stay as they were written."""
    codes, found = pd.factorize(rows["label"])
    texts = np.asarray(found, object)
    good = _good(rows)
    used = np.zeros(len(texts), bool)
    used[codes[good]] = True
    vocabulary = Vocabulary(texts[used].tolist(), allowed)
    names = {text: number for number, text in enumerate(texts)}
    becomes = np.arange(len(texts))
    for code in np.flatnonzero(used).tolist():
        meaning = vocabulary.meanings[texts[code]]
        if meaning.rule:
            _mark(rows, codes == code, meaning.rule, meaning.reason)
        else:
            becomes[code] = names.setdefault(meaning.label, len(names))
    codes = np.where(_good(rows), becomes[codes], codes)
    rows["label"] = pd.Categorical.from_codes(codes, pd.Index(list(names), dtype=object))


def _groups(rows: pd.DataFrame) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """The good rows in order of their texts, where each text begins among them, and the codes of their labels."""
    good = np.flatnonzero(_good(rows))
    order = good[np.argsort(rows["key"].to_numpy()[good], kind="stable")]
    keys = rows["key"].to_numpy()[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.array([], int)
    return order, starts, rows["label"].cat.codes.to_numpy()[order]


def _differs(values: "np.ndarray[Any, Any]", starts: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """For each group whether its values are not all the same."""
    if not len(starts):
        return np.array([], bool)
    lowest, highest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    different: np.ndarray[Any, Any] = lowest != highest
    return different


def _mark_repetitions(rows: pd.DataFrame, files: Sequence[str]) -> None:
    """Marks every row of a text that comes with several labels, for nobody can say which is right; else all but one."""
    order, starts, codes = _groups(rows)
    if not len(order):
        return
    sizes = np.diff(starts, append=len(order))
    first = order[np.repeat(starts, sizes)]
    contradictory = np.zeros(len(rows), bool)
    several = _differs(codes, starts)
    contradictory[order[np.repeat(several, sizes)]] = True
    again = np.zeros(len(rows), bool)
    again[order[order != first]] = True
    names = rows["label"].cat.categories
    numbers, owners, labels = rows["row"].to_numpy(), rows["file"].to_numpy(), rows["label"].cat.codes.to_numpy()
    reasons: dict[int, str] = {}
    for at in np.flatnonzero(several):
        group = order[starts[at] : starts[at] + sizes[at]]
        firsts = {labels[row]: row for row in reversed(group)}
        shown = ", ".join(
            f"{names[label]} (row {numbers[row]} of {files[owners[row]]})" for label, row in firsts.items()
        )
        reasons.update(dict.fromkeys(group.tolist(), f"the same text comes with the labels {shown}"))
    _mark(rows, contradictory, "contradictory_label", [reasons[row] for row in np.flatnonzero(contradictory).tolist()])
    before = np.empty(len(rows), np.int64)
    before[order] = first
    repeated = np.flatnonzero(again & _good(rows))
    _mark(rows, again, "duplicate", [
        f"the same text and label came in row {numbers[at]} of {files[owners[at]]}" for at in before[repeated]
    ])  # fmt: skip


def _mark_contradictory_files(rows: pd.DataFrame, files: Sequence[str]) -> dict[int, str]:
    """Sets aside files that label many of the texts they share with others differently.

    Otherwise they would take the others' rows along. The one that differs most goes first, and of equal ones the later.
    """
    warnings: dict[int, str] = {}
    while len(files) - len(warnings) > 1 and (worst := _most_contradictory(rows)):
        file, shared, different = worst
        reason = (
            f"{different} of the {shared} texts that {files[file]} shares with other files have another label there: "
            "all its rows are set aside"
        )
        _mark(rows, rows["file"].to_numpy() == file, "contradictory_file", reason)
        warnings[file] = reason
    return warnings


def _most_contradictory(rows: pd.DataFrame) -> tuple[int, int, int] | None:
    """The file to set aside next, how many texts it shares with others, and how many of them it labels differently."""
    order, starts, codes = _groups(rows)
    sizes = np.diff(starts, append=len(order))
    in_several = np.repeat(_differs(rows["file"].to_numpy()[order], starts), sizes)
    if not in_several.any():
        return None
    shared = pd.DataFrame({
        "file": rows["file"].to_numpy()[order][in_several],
        "key": rows["key"].to_numpy()[order][in_several],
        "label": codes[in_several],
    }).drop_duplicates(["file", "key"])  # fmt: skip
    others = shared.groupby("key")["file"].transform("size") - 1
    same = shared.groupby(["key", "label"])["file"].transform("size") - 1
    shared["different"] = others - same > same
    found = shared.groupby("file")["different"].agg(["size", "sum"])
    found = found[(found["size"] >= FEWEST_SHARED) & (found["sum"] > MOST_DIFFERENT * found["size"])]
    if not len(found):
        return None
    share = found["sum"] / found["size"]
    file = share[share == share.max()].index.max()
    return int(file), int(found.loc[file, "size"]), int(found.loc[file, "sum"])


def _mark_rare_labels(rows: pd.DataFrame, minimum: int, trained: set[str]) -> None:
    """Marks labels that are new, and too few to be split into training, validation and golden rows."""
    counts = rows.loc[_good(rows), "label"].value_counts()
    for label, count in counts[(counts > 0) & (counts < minimum)].items():
        if label not in trained:
            _mark(rows, (rows["label"] == label).to_numpy(), "label_too_rare", (
                f"label {str(label)[:80]!r} has {count} good rows; {minimum} are needed (BERT_MIN_ROWS_PER_LABEL)"
            ))  # fmt: skip
