"""What the gates say: to people who are no statisticians, in percent and in points of a hundred."""

import re
from collections.abc import Sequence
from math import ceil, log10

from include.evaluation.comparison import Comparison, Pair
from include.evaluation.counting import ClassCounts, Counts

NONE_ESTABLISHED = (
    "none of the golden rows is established, so nothing says how the challenger compares: golden rows judge once a "
    "model trained on the upload they came with was promoted, or a person has said so"
)
NAMED = 5
OUTCOME = re.compile(r"\b(Promoted|Rejected|Awaiting approval): ")


def percent(share: float) -> str:
    """A share as people read it: 0.935 as 93.5 %."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares as people read it: -0.012 as -1.2 points."""
    return f"{100 * difference:+.1f} points"


def floor(rows: int, right: int, least: float) -> str:
    """Says how the accuracy floor was met."""
    return f"{right} of {rows} golden rows are right: {percent(right / rows)} (at least {percent(least)} is asked)"


def beside(other: str, pair: Pair, half: float, confidence: float, margin: float, *, keeps: bool) -> str:
    """Says what was compared, on how many rows, how sure, and what follows. ``keeps``: unsure is a no."""
    low, high = pair.difference - half, pair.difference + half
    if low >= -margin:
        verdict = f"not worse by more than the {_drop(margin)} that are tolerated"
    elif high < 0:
        verdict = "shown worse"
    elif pair.difference >= 0:
        verdict = "not shown worse"
    elif keeps:
        verdict = f"not shown worse, but lower, and then the {other} stays (BERT_WHEN_UNSURE=keep)"
    else:
        verdict = "not shown worse, so small a loss can be chance on so few rows"
    return (
        f"against the {other} on the same {pair.rows} rows {pair.fixed} answers are fixed and {pair.broken} broken, "
        f"{points(pair.difference)} ({100 * low:+.1f} to {100 * high:+.1f}, either end {100 * confidence:g} % sure): "
        f"{verdict}"
    )


def new_rows(rows: int, right: int, least: int, share: float) -> str:
    """Says what the golden rows that came with this upload show."""
    came = f"of the {rows} golden row{'' if rows == 1 else 's'} that came with this upload"
    less = f"show that less than {percent(share)} of such rows are"
    shows = f"fewer than {least} would {less}" if least else f"so few cannot {less}"
    return (
        f"{came} {right} {'is' if right == 1 else 'are'} right ({percent(right / rows)}); {shows}. Once this model, or "
        "another trained on them, is promoted they count among the others"
    )


def classes(worst: ClassCounts, failing: Sequence[ClassCounts], every: Sequence[ClassCounts], least: float) -> str:
    """Names the class that fails a gate over classes most clearly, or is the closest to it."""
    compared = "and shown to be recalled worse than before" if worst.pairs else "and not by chance"
    told = f"{worst.label!r} with {worst.right} of {worst.rows} golden rows right ({percent(worst.recall)})"
    number = f"{len(every)} class{'es' if len(every) > 1 else ''}"
    if not failing:
        return f"none of {number} is below {percent(least)} {compared}; closest is {told}"
    others = [one.label for one in failing if one.label != worst.label]
    more = f"; also: {', '.join(others[:NAMED])}{' …' if len(others) > NAMED else ''}" if others else ""
    return f"{len(failing)} of {number} below {percent(least)} {compared}; worst is {told}{more}"


def power(comparison: Comparison, margin: float) -> str:
    """How small a drop the rows would show, and what it takes for a smaller one."""
    drop, needed = comparison.smallest_visible_drop, comparison.rows_for_margin
    if drop >= 1:
        told = f"These {comparison.rows} rows are too few to show even a complete failure four times in five"
    else:
        told = f"Four times in five these {comparison.rows} rows would show a drop of {_drop(drop)}"
    if needed is None or drop <= margin:
        return f"{told}."
    return f"{told}; one of {_drop(margin)} takes about {_about(needed):,} golden rows."


def reason(
    failed: Sequence[tuple[str, str]],
    passed: Sequence[str],
    counts: Counts,
    told: Comparison | None,
    margin: float,
    *,
    passed_word: str = "Promoted",
) -> str:
    """Of a decision: the gates that failed, as (name, explanation), or else what those that passed say.

    ``passed_word`` is what becomes of a challenger that fails none.
    """
    sentences = []
    if failed:
        sentences.append(
            "Rejected: " + "; ".join(f"{name} failed, {explanation}" for name, explanation in failed) + "."
        )
    elif not counts.has_champion:
        sentences.append(f"{passed_word}: {passed[0]}; there is no champion to compare with.")
    elif told is None:
        sentences.append(
            f"{passed_word}: {passed[0]}; the champion knows none of their labels, so nothing was compared."
        )
    else:
        sentences.append(f"{passed_word}: {passed[0]}; {passed[1]}.")
    if counts.not_judged:
        names = ", ".join(map(repr, counts.not_judged[:NAMED]))
        more = f" and {len(counts.not_judged) - NAMED} more" if len(counts.not_judged) > NAMED else ""
        sentences.append(f"Not judged, for they have no golden rows: {names}{more}.")
    if told is not None:
        sentences.append(power(told, margin))
    return " ".join(sentences)


def without_outcome(reason: str) -> str:
    """A decision's reason without the outcome that it begins with, for where that stands already."""
    return OUTCOME.sub("", reason, count=1)


def _drop(share: float) -> str:
    return f"{100 * share:.1f} points"


def _about(number: int) -> int:
    """A number of rows, rounded up to two digits."""
    unit = int(10 ** max(0, int(log10(number)) - 1))
    return ceil(number / unit) * unit
