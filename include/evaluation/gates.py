"""Whether a challenger becomes the champion: gates over the models' answers to the same golden rows.

Three models may answer: the challenger, the champion, and the *anchor*, a former champion. Golden rows are
*established*, or they came with the very upload that the challenger learnt from and judge nothing but themselves.

**accuracy_floor.** At least ``min_accuracy`` of the established rows are right; of all rows, for a first model.

**non_inferiority.** The challenger beside the champion on the established rows whose label the champion knows: the
difference of their accuracies, as an interval (``comparison``). It is read as the CONSORT extension for non-inferiority
trials reads it (Piaggio et al., JAMA 2012, 308:2594), except for the last line:

====================================  =========================================  ========
the interval lies                     the data say                               verdict
====================================  =========================================  ========
above -margin                         not worse by more than the margin          pass
below 0, and not above -margin        worse, perhaps by more than the margin     **fail**
over both -margin and 0               too few rows to tell                       pass
====================================  =========================================  ========

A strict reading would fail the third line too, and with it most challengers as good as the champion. The price: a drop
that the set is too small to show is let through. So each decision says how small a drop its rows would show four times
in five, and with ``when_unsure`` "keep" the third line fails if the challenger got fewer rows right. The default is
"promote": a champion that may only be followed by one that scored at least as well becomes the luckiest on these very
rows, and after a year of equal challengers next to none is let in (docs/promotion.md has the numbers).

**anchor.** The same beside the anchor, so that drops too small to be shown in any one week cannot add up. Each gate
refuses challengers as good as the other model as often as its confidence says: 1 % of them at ``gate_confidence`` 0.99,
5 % at ``anchor_confidence`` 0.95. The anchor stays where it is, and is compared with more strictly, for it is the one
that a slow decline is seen beside. While the champion is the anchor, the stricter of both confidences counts. A
challenger that beats the anchor at ``NEW_ANCHOR``, or has other labels, becomes the next one. (The best score so far as
anchor would do harm: the luckiest of equal models refuses more of them each week.)

**class_recall.** A class of at least ``min_class_rows`` established rows fails if it is recalled below
``min_class_recall`` *and* shown to be recalled worse than by the champion or the anchor, at a confidence corrected for
the number of classes: ``CLASS_ERROR`` is the total.

**new_labels.** What the champion does not know cannot be compared: such a class fails if it is shown to be recalled
below ``min_class_recall``; for a first model this is how class_recall judges.

**new_rows.** The golden rows that came with this upload: fails if they are shown to be right less often than
``min_accuracy``.

With ``promotion`` "manual" the gates promote nobody: a challenger that passes them, or that they cannot judge, waits
for a person, whatever ``when_unsure`` says. ``Decision.promote`` says that it passed.

A challenger that is not promoted was *shown worse*, or too little was shown. Worse it was if, beside a champion, a gate
of its floors or classes fails, or if one of the comparisons fails and does so at ``gate_confidence``: at the anchor's
confidence too many uploads would be blamed that did no harm. A first model was shown nothing but too few rows.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from include.evaluation import words
from include.evaluation.comparison import Comparison, Pair, compare, half_width, least_right, tolerated_drop
from include.evaluation.counting import ClassCounts, Counts, Known, count
from include.settings import Settings

NEW_ANCHOR = 0.9995
# Of refusing an equal challenger by any class. Calculated over all outcomes, classes of 10 to 30 rows that are recalled
# every other time cost up to six times as much, and all classes of a model that is right in 70 % of all rows up to 2 %.
CLASS_ERROR = 0.005
FLOOR_ERROR = 0.01  # of refusing new rows that are right as often as the floor says
NEW_LABEL_ERROR = 0.05  # the same for classes that nothing can be compared with; nobody's equals are refused by it


class Thresholds(BaseModel):
    """What a challenger must reach; named as in the settings, which say what each one means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_accuracy: float = Field(ge=0, le=1)
    max_accuracy_drop: float = Field(ge=0, le=1)
    gate_confidence: float = Field(gt=0.5, lt=1)
    anchor_confidence: float = Field(0.95, gt=0.5, lt=1)  # evaluations before there was an anchor have none
    when_unsure: Literal["promote", "keep"] = "promote"
    promotion: Literal["automatic", "manual"] = "automatic"  # manual: a person decides about those that pass
    min_class_recall: float = Field(ge=0, le=1)
    min_class_rows: int = Field(ge=1)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Thresholds":
        """The thresholds that the settings name."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})

    @property
    def keeps_when_unsure(self) -> bool:
        """Whether what the rows cannot judge is refused; where a person decides, it is the person's to judge."""
        return self.when_unsure == "keep" and self.promotion == "automatic"

    def champion_confidence(self, *, is_anchor: bool) -> float:
        """How sure it must be that a challenger is worse than the champion; less, if that one is the anchor, too."""
        return min(self.gate_confidence, self.anchor_confidence) if is_anchor else self.gate_confidence


class Gate(BaseModel):
    """One gate: it passed if and only if ``value`` is at least ``threshold``."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    threshold: float
    passed: bool
    explanation: str


class Decision(BaseModel):
    """The verdict, the gates it rests on and a few sentences for people."""

    model_config = ConfigDict(frozen=True)

    promote: bool
    gates: list[Gate]
    reason: str
    shown_worse: bool | None = None  # None: by a version that did not tell
    new_anchor: bool = False  # if promoted, it is the next anchor
    comparisons: list[Comparison] = []  # with the champion, then with the anchor
    not_judged: list[str] = []  # classes of the challenger without golden rows


def decide(
    labels: Sequence[str],
    challenger: Sequence[str],
    champion: Sequence[str] | None,
    anchor: Sequence[str] | None,
    thresholds: Thresholds,
    *,
    established: Sequence[bool] | None = None,
    known: Known | None = None,
) -> Decision:
    """Judges a challenger against the thresholds and, if there are any, against champion and anchor.

    All sequences are of the same length n > 0 and in the same order: the golden labels, what each model answers, and
    whether a row is established (None: all are). ``anchor`` is None where there is none or it is the champion.
    ``known`` says which labels each model has; without it every model has all. A gate that has no rows is left out.
    Raises ValueError if the lengths differ or there are no rows.
    """
    return judge(count(labels, challenger, champion, anchor, established, known or Known()), thresholds)


def judge(counts: Counts, thresholds: Thresholds) -> Decision:
    """``decide``, from rows that are counted already."""
    gates = [accuracy_floor(counts.rows, counts.right, thresholds)]
    comparisons: list[Comparison] = []
    if counts.has_champion:
        gates += _beside_others(counts, thresholds, comparisons)
    gates += _class_gates(counts, thresholds)
    if counts.has_champion and counts.new_rows:
        gates.append(new_rows(counts.new_rows, counts.new_right, thresholds))
    promote = all(gate.passed for gate in gates)
    return Decision(
        promote=promote,
        gates=gates,
        reason=words.reason(
            [(gate.name, gate.explanation) for gate in gates if not gate.passed],
            [gate.explanation for gate in gates if gate.passed],
            counts,
            next((one for one in comparisons if one.against == "champion"), None),
            thresholds.max_accuracy_drop,
            passed_word="Awaiting approval" if thresholds.promotion == "manual" else "Promoted",
        ),
        shown_worse=not promote and counts.has_champion and _is_shown(gates, counts, thresholds),
        new_anchor=_is_new_anchor(counts),
        comparisons=comparisons,
        not_judged=list(counts.not_judged),
    )


def accuracy_floor(rows: int, right: int, thresholds: Thresholds) -> Gate:
    """Are enough established rows right? Without a champion all count; with one there may be none, and that fails."""
    floor = thresholds.min_accuracy
    if not rows:
        return Gate(name="accuracy_floor", value=-1, threshold=floor, passed=False, explanation=words.NONE_ESTABLISHED)
    accuracy = right / rows
    return Gate(
        name="accuracy_floor",
        value=accuracy,
        threshold=floor,
        passed=accuracy >= floor,
        explanation=words.floor(rows, right, floor),
    )


def non_inferiority(pair: Pair, thresholds: Thresholds, *, is_anchor: bool) -> Gate:
    """Beside the champion, on the rows that can be compared. ``is_anchor``: no other model is the anchor."""
    confidence = thresholds.champion_confidence(is_anchor=is_anchor)
    half, margin = half_width(pair, confidence), thresholds.max_accuracy_drop
    keeps = thresholds.keeps_when_unsure
    lowest = min(0.0, half - margin) if keeps else -tolerated_drop(half, margin)
    return Gate(
        name="non_inferiority",
        value=pair.difference,
        threshold=lowest,
        passed=pair.difference >= lowest,
        explanation=words.beside("champion", pair, half, confidence, margin, keeps=keeps),
    )


def beside_anchor(pair: Pair, thresholds: Thresholds) -> Gate:
    """The same beside an anchor that is not the champion; unsure is not worse here."""
    confidence, margin = thresholds.anchor_confidence, thresholds.max_accuracy_drop
    half = half_width(pair, confidence)
    lowest = -tolerated_drop(half, margin)
    return Gate(
        name="anchor",
        value=pair.difference,
        threshold=lowest,
        passed=pair.difference >= lowest,
        explanation=words.beside("anchor", pair, half, confidence, margin, keeps=False),
    )


def class_threshold(rows: int, right: int, pairs: Sequence[Pair], error: float, thresholds: Thresholds) -> float:
    """The recall below which one class fails: below the floor, and shown worse than one of the models in ``pairs``.

    ``error`` is the chance, for each of them, to call an equal one worse.
    """
    recall = right / rows
    shown = max(recall - pair.difference - half_width(pair, 1 - error) for pair in pairs)
    return min(thresholds.min_class_recall, shown)


def class_error(classes: int, models: int) -> float:
    """The error of one comparison of one class, so that all of them together cost ``CLASS_ERROR``."""
    return CLASS_ERROR / (classes * models)


def new_rows(rows: int, right: int, thresholds: Thresholds) -> Gate:
    """The golden rows that came with this upload: never decided by a handful."""
    least = least_right(rows, thresholds.min_accuracy, FLOOR_ERROR)
    return Gate(
        name="new_rows",
        value=right / rows,
        threshold=least / rows,
        passed=right >= least,
        explanation=words.new_rows(rows, right, least, thresholds.min_accuracy),
    )


def beats_anchor(pair: Pair) -> bool:
    """Whether a challenger is so clearly better that it is the next anchor."""
    return pair.difference > half_width(pair, NEW_ANCHOR)


def _is_new_anchor(counts: Counts) -> bool:
    """Whether a challenger, once promoted, is the next anchor: the first is, one of other labels, and a clear best."""
    pair = counts.anchor or counts.champion
    return not counts.has_champion or counts.labels_changed or pair is None or beats_anchor(pair)


def _beside_others(counts: Counts, thresholds: Thresholds, comparisons: list[Comparison]) -> list[Gate]:
    gates = []
    margin = thresholds.max_accuracy_drop
    if counts.champion is not None:
        is_anchor = counts.anchor is None
        gates.append(non_inferiority(counts.champion, thresholds, is_anchor=is_anchor))
        confidence = thresholds.champion_confidence(is_anchor=is_anchor)
        comparisons.append(compare(counts.champion, "champion", confidence, margin))
    if counts.anchor is not None:
        gates.append(beside_anchor(counts.anchor, thresholds))
        comparisons.append(compare(counts.anchor, "anchor", thresholds.anchor_confidence, margin))
    return gates


def _class_gates(counts: Counts, thresholds: Thresholds) -> list[Gate]:
    compared = [one for one in counts.classes if one.pairs and one.rows >= thresholds.min_class_rows]
    floored = [one for one in counts.classes if not one.pairs]
    if not counts.has_champion:
        floored = [one for one in floored if one.rows >= thresholds.min_class_rows]
    models = max((len(one.pairs) for one in compared), default=1)
    error = class_error(len(compared) or 1, models)
    limits = [class_threshold(one.rows, one.right, one.pairs, error, thresholds) for one in compared]
    gates = [_class_gate("class_recall", compared, limits, thresholds)] if compared else []
    if floored:
        floor, error = thresholds.min_class_recall, NEW_LABEL_ERROR / len(floored)
        limits = [least_right(one.rows, floor, error) / one.rows for one in floored]
        name = "new_labels" if counts.has_champion else "class_recall"
        gates.append(_class_gate(name, floored, limits, thresholds))
    return gates


def _class_gate(name: str, classes: list[ClassCounts], limits: list[float], thresholds: Thresholds) -> Gate:
    """The gate as the class that is closest to failing, or the furthest below, sees it."""
    margins = [one.recall - limit for one, limit in zip(classes, limits, strict=True)]
    worst = margins.index(min(margins))
    failing = [one for one, margin in zip(classes, margins, strict=True) if margin < 0]
    return Gate(
        name=name,
        value=classes[worst].recall,
        threshold=limits[worst],
        passed=not failing,
        explanation=words.classes(classes[worst], failing, classes, thresholds.min_class_recall),
    )


def _is_shown(gates: list[Gate], counts: Counts, thresholds: Thresholds) -> bool:
    """Whether the rows show, at ``gate_confidence``, what made a gate fail: then the upload is to blame, not chance."""
    failed = {gate.name for gate in gates if not gate.passed}
    pairs = {"non_inferiority": counts.champion, "anchor": counts.anchor}
    compared = [pair for name, pair in pairs.items() if name in failed and pair is not None]
    if any(pair.difference < -half_width(pair, thresholds.gate_confidence) for pair in compared):
        return True
    return counts.rows > 0 and not failed <= set(pairs)
