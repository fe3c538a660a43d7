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
    """Fills ``label``, ``rule`` and ``reason`` in place; the first rule that a row breaks is the one it is given.

    ``rows`` has the columns file (an index of ``files``), row, key, label (as written), rule and reason, in the order
    of files and rows, and a plain index. Returns warnings by file: those whose rows are set aside as a whole.
    """
    _resolve_labels(rows, allowed_labels)
    warnings = _mark_contradictory_files(rows, files)
    _mark_repetitions(rows, files)
    golden = np.isin(rows["key"].to_numpy(), golden_keys)
    _mark(rows, golden, "in_golden_set", "the text is in the frozen golden set, which is never trained on")
    found = known.find(rows["key"].to_numpy())
    same = (found >= 0) & (known.labels[found] == rows["label"].to_numpy()) if len(known.keys) else found >= 0
    _mark(rows, same, "already_known", [_known_reason(known.sources[at]) for at in found[same & _good(rows)]])
    _mark_rare_labels(rows, min_rows_per_label, set(known.labels))
    return warnings


def _good(rows: pd.DataFrame) -> "np.ndarray[Any, Any]":
    good: np.ndarray[Any, Any] = rows["rule"].to_numpy() == ""
    return good


def _mark(rows: pd.DataFrame, broken: "np.ndarray[Any, Any]", rule: str, reasons: str | Sequence[str]) -> None:
    """Gives the rule to the broken rows that have none yet; ``reasons`` is one for all, or one for each of those."""
    chosen = broken & _good(rows)
    rows.loc[chosen, "rule"] = rule
    rows.loc[chosen, "reason"] = reasons if isinstance(reasons, str) else np.array(reasons, object)


def _known_reason(source: str) -> str:
    return f"the champion's dataset has this text with this label{f', from {source}' if source else ''}"


def _resolve_labels(rows: pd.DataFrame, allowed: Collection[str] | None) -> None:
    codes, texts = pd.factorize(rows["label"].to_numpy(object))
    used = np.zeros(len(texts), bool)
    used[codes[_good(rows)]] = True
    vocabulary = Vocabulary(texts[used], allowed)
    meanings = [vocabulary.meanings.get(text) for text in texts]
    labels = np.array([meaning.label if meaning else text for meaning, text in zip(meanings, texts, strict=True)], object)  # noqa: E501 # fmt: skip
    broken = np.array([meaning is not None and meaning.rule != "" for meaning in meanings], bool)
    good = _good(rows)
    rows["label"] = np.where(good & ~broken[codes], labels[codes], rows["label"].to_numpy(object))
    for at in np.flatnonzero(broken):
        meaning = meanings[at]
        assert meaning is not None
        _mark(rows, codes == at, meaning.rule, meaning.reason)


def _groups(rows: pd.DataFrame) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """The good rows in order of their texts, where each text begins among them, and the codes of their labels."""
    good = np.flatnonzero(_good(rows))
    order = good[np.argsort(rows["key"].to_numpy()[good], kind="stable")]
    keys = rows["key"].to_numpy()[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.array([], int)
    return order, starts, pd.factorize(rows["label"].to_numpy(object)[order])[0]


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
    labels, numbers, owners = (rows[name].to_numpy() for name in ("label", "row", "file"))
    reasons: dict[int, str] = {}
    for at in np.flatnonzero(several):
        group = order[starts[at] : starts[at] + sizes[at]]
        firsts = {labels[row]: row for row in reversed(group)}
        shown = ", ".join(f"{label} (row {numbers[row]} of {files[owners[row]]})" for label, row in firsts.items())
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
    for label, count in counts[counts < minimum].items():
        if label not in trained:
            _mark(rows, rows["label"].to_numpy() == label, "label_too_rare", (
                f"label {str(label)[:80]!r} has {count} good rows; {minimum} are needed (BERT_MIN_ROWS_PER_LABEL)"
            ))  # fmt: skip
