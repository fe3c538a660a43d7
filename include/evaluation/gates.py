"""Whether a challenger becomes the champion: three gates over both models' predictions on the same golden rows.

**accuracy_floor.** Accuracy on the golden set is at least ``min_accuracy``.

**non_inferiority.** Both models answer the same rows, so each row gives a paired difference: +1 (fixed), 0 or -1
(broken). Their mean is bootstrapped, one-sided at ``gate_confidence`` on either end. The interval is read as the
CONSORT extension for non-inferiority trials reads it (Piaggio et al., JAMA 2012, 308:2594):

====================================  =========================================  ========
the interval lies                     the data say                               verdict
====================================  =========================================  ========
above -margin                         not worse by more than the margin          pass
below 0, and not above -margin        worse, perhaps by more than the margin     **fail**
over both -margin and 0               too few rows to tell                       pass
====================================  =========================================  ========

A strict reading would fail the third line too. On 150 rows at 95 % accuracy the interval is some ±0.03 wide, so it
would keep out most challengers as good as the champion; here an equal one is kept out at most about once in
``1 / (1 - gate_confidence)`` times, whatever the size of the set, and as the set grows the rule becomes plain
non-inferiority. The price: a drop that the set is too small to show is let through, so the floor is an absolute one.
With few discordant rows a bootstrap is too sure of itself, so half a row is added to each cell of the paired table
(Agresti and Min, Statistics in Medicine 2005, 24:729).

**class_recall.** Each class with at least ``min_class_rows`` golden rows is recalled at ``min_class_recall``, or at
least as well as by the champion where that one is below the floor too: a hard class must not block every model.

A challenger that is not promoted was *shown worse*, or too little was shown. Worse it was if, beside a champion, it is
below the floor, or if the interval of the difference lies below 0: over all rows, or over those of a class that failed.
A first model that is below the floor was shown nothing but too few rows.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from include.settings import Settings

RESAMPLES = 10_000
ROUNDING = 1e-9


class Thresholds(BaseModel):
    """What a challenger must reach; named as in the settings, which say what each one means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_accuracy: float = Field(ge=0, le=1)
    max_accuracy_drop: float = Field(ge=0, le=1)
    gate_confidence: float = Field(gt=0.5, lt=1)
    min_class_recall: float = Field(ge=0, le=1)
    min_class_rows: int = Field(ge=1)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Thresholds":
        """The thresholds that the settings name."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})


class Gate(BaseModel):
    """One gate: it passed if and only if ``value`` is at least ``threshold``."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    threshold: float
    passed: bool
    explanation: str


class Decision(BaseModel):
    """The verdict, the gates it rests on and one sentence for people."""

    model_config = ConfigDict(frozen=True)

    promote: bool
    gates: list[Gate]
    reason: str
    shown_worse: bool | None = None  # None: by a version that did not tell


class Interval(BaseModel):
    """An accuracy difference, challenger minus champion, with its one-sided bounds and the rows behind it."""

    model_config = ConfigDict(frozen=True)

    difference: float
    lower: float
    upper: float
    fixed: int
    broken: int
    rows: int


def decide(
    labels: Sequence[str],
    challenger: Sequence[str],
    champion: Sequence[str] | None,
    thresholds: Thresholds,
    *,
    seed: int = 0,
) -> Decision:
    """Judges a challenger against the thresholds and, if there is one, against the champion.

    All three are of the same length n > 0 and in the same order: the golden labels and what each model predicts. The
    gate non_inferiority is left out without a champion, class_recall when no class has enough rows. The same input and
    seed give the same decision. Raises ValueError if the lengths differ or there are no rows.
    """
    _check_lengths(labels, challenger, champion)
    gates = [_accuracy_floor(labels, challenger, thresholds)]
    shown_worse = False
    if champion is not None:
        interval = paired_interval(labels, challenger, champion, thresholds, seed=seed)
        gates.append(_non_inferiority(interval, thresholds))
        shown_worse = (
            not gates[0].passed
            or interval.upper < -ROUNDING
            or _class_shown_worse(labels, challenger, champion, thresholds, seed=seed)
        )
    class_gate = _class_recall(labels, challenger, champion, thresholds)
    if class_gate is not None:
        gates.append(class_gate)
    promote = all(gate.passed for gate in gates)
    return Decision(
        promote=promote,
        gates=gates,
        reason=_reason(gates, champion is None),
        shown_worse=shown_worse and not promote,
    )


def paired_interval(
    labels: Sequence[str],
    challenger: Sequence[str],
    champion: Sequence[str],
    thresholds: Thresholds,
    *,
    seed: int = 0,
) -> Interval:
    """The paired bootstrap of the accuracy difference.

    The paired differences take three values only, so resampling rows is a multinomial draw of how many were fixed,
    broken and left alone: one vectorised call for all resamples, whatever the number of rows.
    """
    import numpy as np

    pairs = [(new == label, old == label) for label, new, old in zip(labels, challenger, champion, strict=True)]
    fixed, broken, rows = pairs.count((True, False)), pairs.count((False, True)), len(pairs)
    smoothed = np.array([fixed + 0.5, broken + 0.5, rows - fixed - broken + 1.0]) / (rows + 2)
    draws = np.random.default_rng(seed).multinomial(rows, smoothed, size=RESAMPLES)
    differences = (draws[:, 0] - draws[:, 1]) / rows
    tails = [1 - thresholds.gate_confidence, thresholds.gate_confidence]
    lower, upper = np.quantile(differences, tails, method="inverted_cdf")
    return Interval(difference=(fixed - broken) / rows, lower=lower, upper=upper, fixed=fixed, broken=broken, rows=rows)


def _check_lengths(labels: Sequence[str], challenger: Sequence[str], champion: Sequence[str] | None) -> None:
    lengths = {len(labels), len(challenger), len(labels if champion is None else champion)}
    if lengths == {0}:
        raise ValueError("the golden set has no rows: nothing can be decided")
    if len(lengths) > 1:
        raise ValueError(f"labels and predictions are not of the same rows: their lengths are {sorted(lengths)}")


def _accuracy_floor(labels: Sequence[str], challenger: Sequence[str], thresholds: Thresholds) -> Gate:
    right = sum(label == new for label, new in zip(labels, challenger, strict=True))
    accuracy, floor = right / len(labels), thresholds.min_accuracy
    return Gate(
        name="accuracy_floor",
        value=accuracy,
        threshold=floor,
        passed=accuracy >= floor,
        explanation=f"{right} of {len(labels)} golden rows are right: {accuracy:.3f}, at least {floor:.3f} is asked",
    )


def _non_inferiority(interval: Interval, thresholds: Thresholds) -> Gate:
    """``lower >= -margin or upper >= 0``, told as one number: the drop that is tolerated."""
    margin = thresholds.max_accuracy_drop
    within, unclear = interval.lower >= -margin - ROUNDING, interval.upper >= -ROUNDING
    tolerated = max(margin - (interval.difference - interval.lower), interval.upper - interval.difference)
    if within:
        verdict = f"not worse by more than the margin of {margin:.3f}"
    elif unclear:
        verdict = f"{interval.rows} rows cannot show that it is worse; a challenger is kept out only when they do"
    else:
        verdict = f"worse, and perhaps by more than the margin of {margin:.3f}"
    return Gate(
        name="non_inferiority",
        value=interval.difference,
        threshold=-tolerated,
        passed=within or unclear,
        explanation=(
            f"against the champion {interval.fixed} rows are fixed and {interval.broken} broken: accuracy "
            f"{interval.difference:+.3f}, between {interval.lower:+.3f} and {interval.upper:+.3f} "
            f"(paired bootstrap, one-sided {thresholds.gate_confidence:.0%} each): {verdict}"
        ),
    )


def _class_recall(
    labels: Sequence[str], challenger: Sequence[str], champion: Sequence[str] | None, thresholds: Thresholds
) -> Gate | None:
    """The gate as the class that is closest to failing sees it; None if no class has enough rows."""
    needed: dict[str, float] = {}
    recalls: dict[str, float] = {}
    for name in sorted(set(labels)):
        rows = [row for row, label in enumerate(labels) if label == name]
        if len(rows) < thresholds.min_class_rows:
            continue
        recalls[name] = sum(challenger[row] == name for row in rows) / len(rows)
        before = 1.0 if champion is None else sum(champion[row] == name for row in rows) / len(rows)
        needed[name] = min(thresholds.min_class_recall, before)
    if not recalls:
        return None
    worst = min(recalls, key=lambda name: recalls[name] - needed[name])
    failing = [name for name in recalls if recalls[name] < needed[name]]
    return Gate(
        name="class_recall",
        value=recalls[worst],
        threshold=needed[worst],
        passed=not failing,
        explanation=_class_explanation(worst, failing, recalls, needed, thresholds),
    )


def _class_shown_worse(
    labels: Sequence[str], challenger: Sequence[str], champion: Sequence[str], thresholds: Thresholds, *, seed: int
) -> bool:
    """Whether a class that fails is recalled worse than by the champion, and not by chance."""
    for name in sorted(set(labels)):
        rows = [row for row, label in enumerate(labels) if label == name]
        if len(rows) < thresholds.min_class_rows:
            continue
        new, old = [challenger[row] for row in rows], [champion[row] for row in rows]
        recall, before = new.count(name) / len(rows), old.count(name) / len(rows)
        fails = recall < min(thresholds.min_class_recall, before)
        if fails and paired_interval([name] * len(rows), new, old, thresholds, seed=seed).upper < -ROUNDING:
            return True
    return False


def _class_explanation(
    worst: str, failing: list[str], recalls: dict[str, float], needed: dict[str, float], thresholds: Thresholds
) -> str:
    asked = f"{needed[worst]:.3f} is asked"
    if needed[worst] < thresholds.min_class_recall:
        asked += ", the champion's own, which is below the floor too"
    gated = f"{len(recalls)} classes with at least {thresholds.min_class_rows} golden rows"
    if not failing:
        return f"all {gated} are recalled well enough; closest is {worst!r} at {recalls[worst]:.3f} ({asked})"
    others = [name for name in failing if name != worst]
    more = f"; also failing: {', '.join(others[:5])}{' …' if len(others) > 5 else ''}" if others else ""
    return f"{len(failing)} of {gated} fail; worst is {worst!r} at {recalls[worst]:.3f} ({asked}){more}"


def _reason(gates: list[Gate], first: bool) -> str:
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        return "Rejected: " + "; ".join(f"{gate.name} failed, {gate.explanation}" for gate in failed) + "."
    tail = "there is no champion to compare with" if first else gates[1].explanation
    return f"Promoted: {gates[0].explanation}; {tail}."
