"""What the gates count: rows that are right, by class and beside the other models."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from include.evaluation.comparison import Pair


class Known(NamedTuple):
    """The labels that each model has; None: every label there is."""

    challenger: Collection[str] | None = None
    champion: Collection[str] | None = None
    anchor: Collection[str] | None = None


class ClassCounts(NamedTuple):
    """One class: its rows, those that the challenger has right, and a pair for each other model that knows it."""

    label: str
    rows: int
    right: int
    pairs: tuple[Pair, ...] = ()

    @property
    def recall(self) -> float:
        """The share of the class's rows that are right."""
        return self.right / self.rows


class Counts(NamedTuple):
    """One decision's golden rows, counted.

    ``rows`` and ``right`` are of the established rows, and of all where there is no champion; ``new_rows`` and
    ``new_right`` of the others. ``champion`` and ``anchor`` are of the established rows whose label that model knows,
    None where there are none. A class without pairs can be compared with nobody, and is counted over all its rows.
    """

    has_champion: bool
    rows: int
    right: int
    champion: Pair | None = None
    anchor: Pair | None = None
    classes: tuple[ClassCounts, ...] = ()
    new_rows: int = 0
    new_right: int = 0
    labels_changed: bool = False
    not_judged: tuple[str, ...] = ()


def count(
    labels: Sequence[str],
    challenger: Sequence[str],
    champion: Sequence[str] | None,
    anchor: Sequence[str] | None,
    established: Sequence[bool] | None,
    known: Known,
) -> Counts:
    """Counts what ``gates.decide`` is given. A label that the challenger has lost counts against it.

    Raises ValueError if the sequences are not of one length, or have none.
    """
    _check_lengths(labels, challenger, champion, anchor, established)
    if champion is None:  # then there is nothing to compare with, and no row is too new
        anchor = established = None
    rows = _Rows(labels, challenger)
    old = [row for row in range(len(labels)) if established is None or established[row]]
    others = [
        (answers, has) for answers, has in ((champion, known.champion), (anchor, known.anchor)) if answers is not None
    ]
    compared_with = known.champion if anchor is None else known.anchor
    return Counts(
        has_champion=champion is not None,
        rows=len(old),
        right=rows.right(old),
        champion=rows.pair(old, champion, known.champion),
        anchor=rows.pair(old, anchor, known.anchor),
        classes=tuple(_classes(rows, old, others)),
        new_rows=len(labels) - len(old),
        new_right=rows.right(range(len(labels))) - rows.right(old),
        labels_changed=_differ(known.challenger, compared_with),
        not_judged=tuple(sorted(set(known.challenger or ()) - set(labels))),
    )


class _Rows(NamedTuple):
    labels: Sequence[str]
    challenger: Sequence[str]

    def right(self, rows: Collection[int]) -> int:
        return sum(self.challenger[row] == self.labels[row] for row in rows)

    def pair(self, rows: Collection[int], answers: Sequence[str] | None, has: Collection[str] | None) -> Pair | None:
        """The challenger beside a model, on those of the rows whose label that one knows; None if there are none."""
        if answers is None:
            return None
        shared = [row for row in rows if has is None or self.labels[row] in has]
        if not shared:
            return None
        return Pair.of(*([values[row] for row in shared] for values in (self.labels, self.challenger, answers)))


def _classes(
    rows: _Rows, old: Sequence[int], others: Sequence[tuple[Sequence[str], Collection[str] | None]]
) -> list[ClassCounts]:
    by_label: dict[str, list[int]] = {}
    for row, label in enumerate(rows.labels):
        by_label.setdefault(label, []).append(row)
    established, found = set(old), []
    for label, every in sorted(by_label.items()):
        knowing = [other for other in others if other[1] is None or label in other[1]]
        of = [row for row in every if row in established] if knowing else every
        if of:
            pairs = [rows.pair(of, *other) for other in knowing]
            found.append(ClassCounts(label, len(of), rows.right(of), tuple(pair for pair in pairs if pair)))
    return found


def _differ(one: Collection[str] | None, other: Collection[str] | None) -> bool:
    return one is not None and other is not None and set(one) != set(other)


def _check_lengths(labels: Sequence[str], *others: Sequence[object] | None) -> None:
    lengths = {len(labels), *(len(other) for other in others if other is not None)}
    if lengths == {0}:
        raise ValueError("the golden set has no rows: nothing can be decided")
    if len(lengths) > 1:
        raise ValueError(f"labels and predictions are not of the same rows: their lengths are {sorted(lengths)}")
