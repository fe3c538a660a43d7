"""What only all rows of an intake together show: contradictions, repetitions, what is known, and odd labels."""
# ruff: noqa: TID253 - only imported inside tasks; numpy is what it is about

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from include.datasets.checks import text_keys
from include.datasets.labels import Vocabulary
from include.datasets.names import is_feedback

FEWEST_SHARED = 10  # texts; a file that shares fewer with others is not judged by them
MOST_DIFFERENT = 0.2  # of the texts that a file shares with others
SHOWN_CHANGES = 2
MOST_CORRECTIONS, CORRECTED_SHARE = 5, 0.02  # golden labels that uploads may change at once, whichever is more
UNAPPROVED, NEW_LABEL = "waiting_for_approval", "new_label"
"""What is no fault of a row: it waits."""


@dataclass(frozen=True)
class Labels:
    """Which labels count: those of the model, or None before there is one, and what others need.

    With ``open``, a label that the model does not know counts with ``needed`` good rows, or with ``fewest`` if it is
    among the ``admitted``; its rows wait until then. Before there is a model, each needs ``fewest``. By ``mapping`` an
    old name counts as the new one.
    """

    model: Collection[str] | None
    fewest: int
    open: bool = False
    needed: int = 0
    admitted: Collection[str] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)


Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Rows:
    """An intake's n rows in the order of their files, without their texts: some 20 bytes each.

    ``files`` are the files' names and ``file`` (n,) numbers of them; ``number`` (n,) counts the rows in a file; ``key``
    (n,) is what ``checks.text_keys`` gives; ``names`` are labels and ``label`` (n,) numbers of them. ``broken`` has the
    rule and reason of each row that is not good, by its place; ``renamed`` by the number of a file how many of its rows
    had the old name of a label, for each old and new name.
    """

    files: Sequence[str]
    file: Numbers
    number: Numbers
    key: Numbers
    label: Numbers
    names: list[str]
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    renamed: dict[int, Counter[tuple[str, str]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.good = np.ones(len(self.key), bool)
        self.good[list(self.broken)] = False

    def __len__(self) -> int:
        return len(self.key)

    def broken_by(self, *rules: str) -> Numbers:
        """Which of the (n,) rows have one of these rules."""
        found = np.zeros(len(self), bool)
        found[[place for place, (rule, _) in self.broken.items() if rule in rules]] = True
        return found

    def mark(self, chosen: Numbers, rule: str, reasons: str | Iterable[str]) -> None:
        """Gives the rule to those of the chosen (n,) rows that have none; ``reasons`` is one for all, or one each."""
        places = np.flatnonzero(chosen & self.good)
        self.good[places] = False
        for place, reason in zip(places.tolist(), [reasons] * len(places) if isinstance(reasons, str) else reasons, strict=True):  # noqa: E501 # fmt: skip
            self.broken[place] = (rule, reason)

    def label_counts(self) -> dict[str, int]:
        """How many good rows each label has."""
        counts = np.bincount(self.label[self.good], minlength=len(self.names))
        return {self.names[code]: int(counts[code]) for code in np.argsort(-counts, kind="stable") if counts[code]}

    def source(self, place: int) -> str:
        """The file and the row's number in it, as a reason names them."""
        return f"row {self.number[place]} of {self.files[self.file[place]]}"


@dataclass(frozen=True)
class Known:
    """The rows that are trained with already, in the order of their keys; ``sources`` say where each came from."""

    keys: Numbers
    labels: Numbers
    sources: Numbers

    @classmethod
    def of(cls, texts: Any, labels: Any, sources: Any = None) -> "Known":
        """Makes them of n texts, which need not be normalised, and their labels and sources."""
        keys = text_keys(texts)
        order = np.argsort(keys, kind="stable")
        where = np.array(sources if sources is not None else [""] * len(keys), object)
        return cls(keys[order], np.array(labels, object)[order], where[order])


def judge(
    rows: Rows,
    *,
    labels: Labels,
    golden: Known,
    known: Known,
    approved: Collection[int] = (),
    waited: Collection[int] = (),
) -> dict[int, str]:
    """Says in place what each label means, and which rule a row breaks, if any: the first one.

    ``golden`` are the rows that judge; a file that gives many of them another label waits for a person, unless it is
    among the ``approved`` by its number. Those that have ``waited`` come after all others. Returns warnings by the
    number of a file: those whose rows are set aside as a whole.
    """
    _resolve_labels(rows, labels)
    _mark_outdated(rows, waited)
    warnings = _mark_contradictory_files(rows)
    _mark_repetitions(rows)
    trained = set(known.labels)
    warnings |= _mark_golden(rows, golden, approved, waited, lambda: _too_new(rows, labels, trained)[rows.label])
    _mark_known(rows, known)
    _mark_rare_labels(rows, labels, trained)
    return warnings


def _places(keys: Numbers, ordered: Numbers) -> Numbers:
    """Where each key stands among ordered ones; -1 if it does not."""
    if not len(ordered):
        return np.full(len(keys), -1, np.int8)
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[places] == keys, places, -1)


def _resolve_labels(rows: Rows, labels: Labels) -> None:
    """Replaces the good rows' labels by what they mean; those of others stay as they were written."""
    if not len(rows):
        return
    used = np.flatnonzero(np.bincount(rows.label[rows.good], minlength=len(rows.names))).tolist()
    vocabulary = Vocabulary([rows.names[code] for code in used], labels.model, open=labels.open, mapping=labels.mapping)
    numbers = {name: code for code, name in enumerate(rows.names)}
    becomes, refused = np.arange(len(rows.names)), np.zeros(len(rows.names), bool)
    for code in used:
        meaning = vocabulary.meanings[rows.names[code]]
        if meaning.rule:
            refused[code] = True
        else:
            becomes[code] = numbers.setdefault(meaning.label, len(numbers))
        if meaning.was:
            files, counts = np.unique(rows.file[rows.good & (rows.label == code)], return_counts=True)
            for file, count in zip(files.tolist(), counts.tolist(), strict=True):
                rows.renamed.setdefault(file, Counter())[meaning.was, meaning.label] += count
    for place in np.flatnonzero(refused[rows.label] & rows.good).tolist():
        meaning = vocabulary.meanings[rows.names[rows.label[place]]]
        rows.broken[place], rows.good[place] = (meaning.rule, meaning.reason), False
    rows.label = np.where(rows.good, becomes[rows.label], rows.label).astype(np.int32)
    rows.names = list(numbers)


def _mark_outdated(rows: Rows, waited: Collection[int]) -> None:
    """Marks rows that have waited and whose text has come with another label since: the newer one counts."""
    if not waited:
        return
    old = np.isin(rows.file, list(waited)) & rows.good
    again = rows.good & ~old & (_places(rows.key, np.unique(rows.key[old])) >= 0)
    newer: dict[int, list[int]] = {}
    for place in np.flatnonzero(again).tolist():
        newer.setdefault(int(rows.key[place]), []).append(place)
    reasons = {}
    for place in np.flatnonzero(old).tolist():
        other = next((one for one in newer.get(int(rows.key[place]), []) if rows.label[one] != rows.label[place]), None)
        if other is not None:
            name = rows.names[rows.label[other]][:80]
            reasons[place] = f"the same text came later with the label {name} ({rows.source(other)}), which counts"
    outdated = np.zeros(len(rows), bool)
    outdated[list(reasons)] = True
    rows.mark(outdated, "contradictory_label", reasons.values())


def _repeated(rows: Rows) -> tuple[Numbers, Numbers, Numbers]:
    """The good rows whose text comes more than once: their places, text by text, and where each text begins and how
    often it comes."""
    places = np.flatnonzero(rows.good).astype(np.int32) if not rows.good.all() else None
    keys = rows.key if places is None else rows.key[places]
    order = np.argsort(keys, kind="stable").astype(np.int32)
    keys = keys[order]
    again = np.zeros(len(keys) + 1, bool)
    np.equal(keys[1:], keys[:-1], out=again[1:-1])
    several = again[1:] | again[:-1]
    starts = np.flatnonzero(~again[:-1][several])
    order = order[several]
    return order if places is None else places[order], starts, np.diff(starts, append=len(order))


def _differs(values: Numbers, starts: Numbers) -> Numbers:
    """Whether the values of each group differ."""
    if not len(starts):
        return np.array([], bool)
    different: Numbers = np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)
    return different


def _mark_repetitions(rows: Rows) -> None:
    """Marks every row of a text that comes with several labels, for nobody can say which is right; else all but one."""
    order, starts, sizes = _repeated(rows)
    several = _differs(rows.label[order], starts)
    contradictory, again = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    contradictory[order[np.repeat(several, sizes)]] = True
    reasons: dict[int, str] = {}
    for at in np.flatnonzero(several).tolist():
        group = order[starts[at] : starts[at] + sizes[at]].tolist()
        firsts = {rows.names[rows.label[place]]: place for place in reversed(group)}
        shown = ", ".join(f"{label} ({rows.source(place)})" for label, place in sorted(firsts.items())[:5])
        reasons.update(dict.fromkeys(group, f"the same text comes with the labels {shown}"))
    rows.mark(contradictory, "contradictory_label", [reasons[place] for place in sorted(reasons)])
    again[order] = True
    again[order[starts]] = False
    first = dict(zip(order.tolist(), np.repeat(order[starts], sizes).tolist(), strict=True))
    repeated = np.flatnonzero(again & rows.good).tolist()
    rows.mark(
        again, "duplicate", [f"the same text and label came in {rows.source(first[place])}" for place in repeated]
    )


def _mark_contradictory_files(rows: Rows) -> dict[int, str]:
    """Sets aside files that label many of the texts they share with others differently.

    Otherwise they would take the others' rows along. The one that differs most goes first, and of equal ones the later.
    """
    warnings: dict[int, str] = {}
    while len(rows.files) - len(warnings) > 1 and (worst := _most_contradictory(rows)):
        file, shared, different = worst
        warnings[file] = (
            f"{different} of the {shared} texts that {rows.files[file]} shares with other files have another label "
            "there: all its rows are set aside"
        )
        rows.mark(rows.file == file, "contradictory_file", warnings[file])
    return warnings


def _most_contradictory(rows: Rows) -> tuple[int, int, int] | None:
    """The file to set aside next, how many texts it shares with others, and how many of them it labels differently."""
    order, starts, sizes = _repeated(rows)
    order = order[np.repeat(_differs(rows.file[order], starts), sizes)]
    if not len(order):
        return None
    shared = pd.DataFrame({"file": rows.file[order], "key": rows.key[order], "label": rows.label[order]})
    shared = shared.drop_duplicates(["file", "key"])
    others = shared.groupby("key")["file"].transform("size") - 1
    same = shared.groupby(["key", "label"])["file"].transform("size") - 1
    found = shared.assign(different=others - same > same).groupby("file")["different"].agg(["size", "sum"])
    found = found[(found["size"] >= FEWEST_SHARED) & (found["sum"] > MOST_DIFFERENT * found["size"])]
    if not len(found):
        return None
    share = found["sum"] / found["size"]
    file = share[share == share.max()].index.max()
    return int(file), int(found.loc[file, "size"]), int(found.loc[file, "sum"])


def _mark_golden(
    rows: Rows, golden: Known, approved: Collection[int], waited: Collection[int], too_new: Callable[[], Numbers]
) -> dict[int, str]:
    """Marks rows that judge already, and files that would change too many of their labels at once.

    The file that would change most waits first, and of equal ones the later; of those that have ``waited`` none as long
    as another would change any. A few changed labels are corrections, and rows that are ``too_new`` change none.
    """
    same = _same(rows, golden)
    rows.mark(same, "in_golden_set", "the text is in the golden set, which is never trained on")
    feedback = [number for number, name in enumerate(rows.files) if is_feedback(name)]
    rows.mark(
        (_places(rows.key, golden.keys) >= 0) & np.isin(rows.file, feedback),
        "in_golden_set",
        "the text is in the golden set, whose labels feedback does not change: upload a file that corrects it",
    )
    corrections = (_places(rows.key, golden.keys) >= 0) & ~same & ~np.isin(rows.file, feedback)
    corrections[np.isin(rows.file, list(approved))] = False
    most = most_corrections(len(golden.keys))
    warnings: dict[int, str] = {}
    while (corrections & rows.good).sum() > most and (changes := corrections & rows.good & ~too_new()).sum() > most:
        newer = changes & ~np.isin(rows.file, list(waited))
        counts = np.bincount(rows.file[newer if newer.any() else changes])
        file = int(np.flatnonzero(counts == counts.max())[-1])
        together = "" if changes.sum() == counts[file] else f", {changes.sum()} in all files of this run together"
        warnings[file] = (
            f"{counts[file]} of the {len(golden.keys)} golden rows have another label in {rows.files[file]}{together} "
            f"({_changes_shown(rows, golden, np.flatnonzero((rows.file == file) & changes))} …), "
            f"and no more than {most} may change without a person's word: all its rows wait for approval"
        )
        rows.mark(rows.file == file, UNAPPROVED, warnings[file])
    return warnings


def _changes_shown(rows: Rows, golden: Known, places: Numbers) -> str:
    """The first of the rows that would change a golden label, with both labels."""
    some = places[:SHOWN_CHANGES]
    was = golden.labels[_places(rows.key[some], golden.keys)]
    return ", ".join(
        f"row {rows.number[place]} says {rows.names[rows.label[place]][:40]!r} instead of {old[:40]!r}"
        for place, old in zip(some.tolist(), was.tolist(), strict=True)
    )


def most_corrections(golden_rows: int) -> int:
    """How many labels of so many golden rows uploads may change without a person's word."""
    return max(MOST_CORRECTIONS, int(CORRECTED_SHARE * golden_rows))


def _same(rows: Rows, known: Known) -> Numbers:
    """(n,) bool: whether a row's text is known with its label."""
    places = _places(rows.key, known.keys)
    numbers = {name: code for code, name in enumerate(rows.names)}
    labels = np.array([numbers.get(label, -1) for label in known.labels], int)
    same: Numbers = places >= 0
    same[same] = labels[places[same]] == rows.label[same]
    return same


def _mark_known(rows: Rows, known: Known) -> None:
    places, same = _places(rows.key, known.keys), _same(rows, known)
    sources = [known.sources[place] for place in places[same & rows.good].tolist()]
    known_too = "the champion's dataset has this text with this label"
    rows.mark(same, "already_known", [f"{known_too}, from {source}" if source else known_too for source in sources])


def _needed(rows: Rows, labels: Labels) -> Numbers:
    """How many rows each label needs to join if it is new."""
    return np.array([labels.fewest if name in labels.admitted else labels.needed for name in rows.names], int)


def _too_new(rows: Rows, labels: Labels, trained: set[str]) -> Numbers:
    """Which labels the model does not know that have too few good rows to join."""
    if not labels.open or labels.model is None:
        return np.zeros(len(rows.names), bool)
    counts, known = np.bincount(rows.label[rows.good], minlength=len(rows.names)), trained | set(labels.model)
    few: Numbers = counts < _needed(rows, labels)
    few &= np.array([name not in known for name in rows.names], bool)
    return few


def _mark_rare_labels(rows: Rows, labels: Labels, trained: set[str]) -> None:
    """Marks labels that are new, and too few to be split into training, validation and golden rows, or to be new."""
    counts = np.bincount(rows.label[rows.good], minlength=len(rows.names))
    is_new = np.array([name not in trained for name in rows.names], bool)
    rare = ((counts < labels.fewest) & is_new)[rows.label]
    waits, needed = _too_new(rows, labels, trained)[rows.label], _needed(rows, labels)
    rows.mark(waits, NEW_LABEL, [
        f"label {rows.names[code][:80]!r} is new and has {counts[code]} good rows; it joins with {needed[code]}"
        for code in rows.label[waits & rows.good].tolist()
    ])  # fmt: skip
    rows.mark(rare, "label_too_rare", [
        f"label {rows.names[code][:80]!r} has {counts[code]} good rows; {labels.fewest} are needed "
        "(BERT_MIN_ROWS_PER_LABEL)"
        for code in rows.label[rare & rows.good].tolist()
    ])  # fmt: skip
