"""What is checked of the rows that came on a day: each check with its value, its threshold and a verdict.

Counts, shares of missing values, duplicates, distances between distributions and values out of range are Evidently's;
what is usual is the model's own last four weeks.
"""
# ruff: noqa: TID253 - frames and arrays are what this module is about

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel

from include.ingestion.quality import usual_lengths
from include.monitoring.assessment import Assessment
from include.monitoring.drift import Comparison
from include.monitoring.profiles import Profile, Profiles, Sample, together

Verdict = Literal["passed", "failed", "not_checked"]
LEAST_ROWS = 20  # of fewer a share says nothing
LEAST_FOR_MIX = 100  # and of fewer neither do mixes
LEAST_PAST = 7  # days, to say what is usual
MOST_IN_MIX = 20_000

EMPTY_TEXTS, MISSING_LABELS, CUT, REJECTED = 0.01, 0.01, 0.05, 0.2
DUPLICATES = {"uploads": 0.2, "training_examples": 0.0, "predictions": 0.5}
LABEL_MIX = LANGUAGE_MIX = 0.3  # Jensen and Shannon's distance, 0 to 1
LENGTH = 0.5  # Wasserstein's distance, in standard deviations of the usual lengths
UNKNOWN = 0.02  # of the pieces
PIECES_PER_WORD = 1.25  # times the usual
OUTLYING_LENGTHS, REPEATED = 0.05, 0.2
LEAST_P = 1e-300
UNUSUAL = 6.0  # robust deviations from the median of the last four weeks
LEAST_DEVIATION = {"volume": 0.25, "latency_ms": 0.35, "confidence": 0.02, "unsure": 0.02}  # two of logarithms


class Check(BaseModel):
    """One check of one day.

    ``name`` is the source or the subject, a full stop and what is checked: ``uploads.empty_texts``. ``told`` says in
    words what was found, or why nothing was checked.
    """

    name: str
    value: float | None
    threshold: float | None
    verdict: Verdict
    told: str


def at_most(name: str, value: float, threshold: float, told: str) -> Check:
    """A check that a higher value fails."""
    return Check(
        name=name, value=value, threshold=threshold, verdict="passed" if value <= threshold else "failed", told=told
    )


def not_checked(name: str, why: str, value: float | None = None) -> Check:
    """A check that there was nothing for."""
    return Check(name=name, value=value, threshold=None, verdict="not_checked", told=why)


def drift_checks(assessment: Assessment) -> list[Check]:
    """Each test of the drift test, and the score: 1 is a drift, and half of that is p the square root of its level."""
    found = [
        Check(
            name=f"drift.{one.name.replace(' ', '_')}.{one.window}",
            value=one.p,
            threshold=one.level,
            verdict="failed" if one.alarms else "passed",
            told=one.told,
        )
        for one in assessment.comparisons
    ]
    if not found:
        return [not_checked("drift.score", assessment.told)]
    score = max(_score(one) for one in assessment.comparisons)
    told = f"{assessment.told}; the clearest change: {assessment.comparisons[0].told}"
    verdict: Verdict = "failed" if assessment.alarms else "passed"
    return [*found, Check(name="drift.score", value=score, threshold=1.0, verdict=verdict, told=told)]


def _score(one: Comparison) -> float:
    score = math.log(max(one.p, LEAST_P)) / math.log(one.level)
    return score if one.alarms else min(score, 0.99)  # one odd day is no drift


def quality(samples: Iterable[Sample], profiles: Profiles, past: Sequence[Profiles]) -> list[Check]:
    """Row counts, missing values, duplicates, and what the intake refused."""
    return [check for sample in samples for check in _quality(sample, profiles[sample.source], past)]


def distributions(
    samples: Iterable[Sample], profiles: Profiles, past: Sequence[Profiles], labels: Sequence[str]
) -> list[Check]:
    """Labels, lengths, languages and tokens beside those of the last four weeks; ``labels`` are the champion's."""
    found = []
    for sample in samples:
        usual = together([day[sample.source] for day in past])
        found += _distributions(sample, profiles[sample.source], usual)
        if sample.source == "uploads" and labels:
            new = sorted(set(profiles["uploads"].labels) - set(labels))
            told = f"labels that the champion does not know: {', '.join(new[:10])}" if new else "all labels are known"
            found.append(at_most("uploads.new_labels", len(new), 0, told))
    return found


def anomalies(samples: Iterable[Sample], profiles: Profiles, past: Sequence[Profiles]) -> list[Check]:
    """Days that are out of the usual: volume, outlying lengths, one text again and again, confidence, latency."""
    return [check for sample in samples for check in _anomalies(sample, profiles[sample.source], past)]


def _quality(sample: Sample, now: Profile, past: Sequence[Profiles]) -> list[Check]:
    source = sample.source
    before = [day[source].rows for day in past]
    found = [_rows(source, now.rows, before)]
    found += _refused(now) if source == "uploads" else []
    if not now.looked_at:
        return found
    measured = evidently(sample.frame, [*_quality_metrics()])
    found.append(_share(now, f"{source}.empty_texts", now.empty_texts, EMPTY_TEXTS, "have no text", needs_text=True))
    if source != "predictions":
        missing = measured["missing_labels"]
        found.append(_share(now, f"{source}.missing_labels", missing, MISSING_LABELS, "have no label"))
    empty = int(measured["empty_columns"]) - (not now.texts_kept)
    found.append(at_most(f"{source}.empty_columns", empty, 0, f"{empty} of text and label are empty in every row"))
    if source != "uploads":  # whose duplicates the intake has counted
        twice, told = measured["duplicates"], "are there more than once, text and label"
        found.append(_share(now, f"{source}.duplicates", twice, DUPLICATES[source], told, needs_text=True))
    if source == "predictions":
        found.append(_share(now, "predictions.cut", now.cut, CUT, "were longer than the model reads"))
    return found


def _rows(source: str, rows: int, before: Sequence[int]) -> Check:
    name = f"{source}.rows"
    if rows or len(before) < LEAST_PAST or not all(before):
        return Check(name=name, value=rows, threshold=None, verdict="passed", told=f"{rows:,} rows came")
    told = f"nothing came, and on each of the {len(before)} days before something did"
    return Check(name=name, value=0, threshold=1, verdict="failed", told=told)


def _refused(now: Profile) -> list[Check]:
    files, unreadable = now.counts.get("files", 0), now.counts.get("unreadable", 0)
    came = now.counts.get("rows_in", 0)
    if not files:
        names = ("unreadable_files", "rejected", "duplicates")
        return [not_checked(f"uploads.{name}", "nothing was uploaded") for name in names]
    told = f"{unreadable} of {files} files cannot be read"
    found = [at_most("uploads.unreadable_files", unreadable, 0, told)]
    for name, threshold, what in (
        ("rejected", REJECTED, "rows were rejected, and were not there already"),
        ("duplicates", DUPLICATES["uploads"], "rows were there before in the same upload"),
    ):
        count = now.counts.get(name, 0)
        told = f"{count:,} of {came:,} {what}"
        found.append(
            at_most(f"uploads.{name}", count / came, threshold, told)
            if came >= LEAST_ROWS
            else not_checked(f"uploads.{name}", f"{told}: too few to judge")
        )
    return found


def _distributions(sample: Sample, now: Profile, usual: Profile) -> list[Check]:
    source = sample.source
    if not now.looked_at:
        return []
    classes = len(now.labels)
    if now.looked_at < LEAST_ROWS:
        return [not_checked(f"{source}.{name}", f"{now.looked_at} rows are too few to judge")
                for name in ("classes", "label_mix", "length")]  # fmt: skip
    told = f"{classes} labels occur" if classes != 1 else f"all rows have one label, {next(iter(now.labels))}"
    found = [
        Check(name=f"{source}.classes", value=classes, threshold=2, told=told,
              verdict="passed" if classes >= 2 else "failed")
    ]  # fmt: skip
    if source != "predictions":  # of which the drift test looks at the labels, and counts what chance does
        found.append(_mix(f"{source}.label_mix", now.labels, usual.labels, LABEL_MIX, "labels"))
    if now.texts_kept:
        found += [
            _lengths(source, now, usual),
            _mix(f"{source}.language_mix", now.languages, usual.languages, LANGUAGE_MIX, "languages"),
            *_tokens(source, now, usual),
        ]
    return found


def _mix(name: str, now: Mapping[str, int], usual: Mapping[str, int], threshold: float, what: str) -> Check:
    if min(sum(now.values()), sum(usual.values())) < LEAST_FOR_MIX:
        return not_checked(
            name, f"{what} of {sum(now.values()):,} rows now and {sum(usual.values()):,} before: too few"
        )
    from evidently.metrics import ValueDrift

    measured = evidently(
        _rows_of(now), [("distance", ValueDrift(column="value", method="jensenshannon"))], _rows_of(usual)
    )
    shares = {
        one: now.get(one, 0) / sum(now.values()) - usual.get(one, 0) / sum(usual.values()) for one in {*now, *usual}
    }
    most = max(shares, key=lambda one: abs(shares[one]))
    told = f"{what} beside the last four weeks; most has changed {most}, by {100 * shares[most]:+.1f} points"
    return at_most(name, measured["distance"], threshold, told)


def _lengths(source: str, now: Profile, usual: Profile) -> Check:
    name = f"{source}.length"
    if min(len(now.lengths), len(usual.lengths)) < LEAST_FOR_MIX:
        return not_checked(name, f"{len(now.lengths)} texts now and {len(usual.lengths)} before: too few")
    from evidently.metrics import ValueDrift

    frames = [pd.DataFrame({"value": np.asarray(one.lengths, float)}) for one in (now, usual)]
    measured = evidently(frames[0], [("distance", ValueDrift(column="value", method="wasserstein"))], frames[1])
    told = (
        f"characters of a text: {statistics.median(now.lengths):.0f} in the middle, "
        f"{statistics.median(usual.lengths):.0f} in the last four weeks"
    )
    return at_most(name, measured["distance"], LENGTH, told)


def _tokens(source: str, now: Profile, usual: Profile) -> list[Check]:
    if not now.pieces:
        return []
    share = now.unknown / now.pieces
    told = f"{now.unknown:,} of {now.pieces:,} word pieces are unknown to the champion's tokenizer"
    found = [at_most(f"{source}.unknown_tokens", share, UNKNOWN, told)]
    name, each = f"{source}.pieces_per_word", now.pieces / max(now.words, 1)
    if not usual.words:
        return [*found, not_checked(name, f"{each:.2f}, and there are no weeks before", each)]
    before = usual.pieces / usual.words
    told = f"{each:.2f} pieces of a word, {before:.2f} in the last four weeks: the more, the less the model knows them"
    return [*found, at_most(name, each, PIECES_PER_WORD * before, told)]


def _anomalies(sample: Sample, now: Profile, past: Sequence[Profiles]) -> list[Check]:
    source = sample.source
    before = [day[source] for day in past]
    found = [_unusual(f"{source}.volume", "volume", math.log1p(now.rows), [math.log1p(one.rows) for one in before],
                      f"{now.rows:,} rows", math.expm1)]  # fmt: skip
    lengths = [length for one in before for length in one.lengths]
    shortest, longest = usual_lengths(lengths)
    if now.lengths and longest:
        from evidently.metrics import OutRangeValueCount

        frame = pd.DataFrame({"value": np.asarray(now.lengths, float)})
        out = evidently(frame, [("out", OutRangeValueCount(column="value", left=shortest, right=longest))])["out"]
        told = f"of {len(now.lengths)} texts {out:.0f} are not between {shortest} and {longest} characters, as is usual"
        name = f"{source}.outlying_lengths"
        too_few = len(now.lengths) < LEAST_ROWS
        share = out / len(now.lengths)
        found.append(not_checked(name, told, share) if too_few else at_most(name, share, OUTLYING_LENGTHS, told))
    if source != "predictions" or not now.looked_at:
        return found
    found.append(_share(now, "predictions.repeated", now.repeated, REPEATED, "are one and the same text"))
    if now.confidence is not None:
        usual = [one.confidence for one in before if one.confidence is not None]
        found.append(_unusual("predictions.confidence", "confidence", now.confidence, usual,
                              f"mean confidence {now.confidence:.3f}"))  # fmt: skip
        shares = [one.unsure / one.looked_at for one in before if one.looked_at]
        share = now.unsure / now.looked_at
        found.append(_unusual("predictions.unsure", "unsure", share, shares, f"{share:.1%} are less sure than a half"))
    if now.latency_ms is not None:
        logs = [math.log1p(one.latency_ms) for one in before if one.latency_ms is not None]
        told = f"19 of 20 answers took at most {now.latency_ms:.0f} ms"
        found.append(
            _unusual("predictions.latency_ms", "latency_ms", math.log1p(now.latency_ms), logs, told, math.expm1)
        )
    return found


def _share(now: Profile, name: str, count: float, threshold: float, what: str, *, needs_text: bool = False) -> Check:
    if needs_text and not now.texts_kept:
        return not_checked(name, "the prediction log has no texts (BERT_LOG_TEXTS)")
    told = f"{count:,.0f} of {now.looked_at:,} rows {what}"
    if now.looked_at < LEAST_ROWS:
        return not_checked(name, f"{told}: too few to judge", count / max(now.looked_at, 1))
    return at_most(name, count / now.looked_at, threshold, told)


def _unusual(
    name: str, kind: str, value: float, before: Sequence[float], told: str, shown: Callable[[float], float] = float
) -> Check:
    """How many robust deviations a value is from the median of the days before."""
    if len(before) < LEAST_PAST:
        return not_checked(name, f"{told}; what is usual is known after {LEAST_PAST} days", shown(value))
    middle = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(one - middle) for one in before)
    deviations = abs(value - middle) / max(spread, LEAST_DEVIATION[kind])
    return at_most(name, deviations, UNUSUAL, f"{told}; usual is {shown(middle):,.4g}")


def _rows_of(counts: Mapping[str, int]) -> pd.DataFrame:
    """Rows with these values, at most so many that Evidently stays quick."""
    total = sum(counts.values())
    scale = min(1.0, MOST_IN_MIX / total)
    repeats = [max(1, round(count * scale)) for count in counts.values()]
    return pd.DataFrame({"value": np.repeat(np.array(list(counts), dtype=object), repeats)})


def _quality_metrics() -> Iterable[tuple[str, Any]]:
    from evidently.metrics import DuplicatedRowCount, EmptyColumnsCount, MissingValueCount

    yield "missing_labels", MissingValueCount(column="label")
    yield "empty_columns", EmptyColumnsCount()
    yield "duplicates", DuplicatedRowCount()


def evidently(
    frame: pd.DataFrame, metrics: Sequence[tuple[str, Any]], reference: pd.DataFrame | None = None
) -> dict[str, float]:
    """What Evidently measures of a frame that has rows, by the names given: counts and distances."""
    from evidently import DataDefinition, Dataset, Report

    columns = [name for name in ("text", "label", "value") if name in frame]
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(frame[name])]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=[name for name in columns if name not in numbers]
    )

    def given(rows: pd.DataFrame) -> Any:
        return Dataset.from_pandas(rows[columns].reset_index(drop=True), definition)

    done = Report([metric for _, metric in metrics]).run(given(frame), None if reference is None else given(reference))
    values = [one["value"] for one in done.dict()["metrics"]]
    return {
        name: float(value["count"] if isinstance(value, dict) else value)
        for (name, _), value in zip(metrics, values, strict=True)
    }
