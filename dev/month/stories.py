"""What the month is to show, each story judged by what was seen of the days."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dev.month import plan
from dev.month.telling import RETRAINING, VALIDATION, WATCH, WEEKLY, Event, Seen
from include.monitoring import estimate

FOUND_WITHIN_DAYS = 5
LEAST_DAG_DAYS = 8
MOST_OFF = 0.05  # of the estimate, on days before the drift
LEAST_DROP, LEAST_GAIN = 0.1, 0.05  # of the true accuracy: by the drift, and by the model that was retrained


Told = tuple[str, bool]
"""What was seen, and whether it is as it should be."""


@dataclass(frozen=True)
class Story:
    """One line of month.json."""

    name: str
    expected: str
    outcome: str
    ok: bool


def judge(days: Sequence[Seen]) -> list[Story]:
    """All stories of a month that was lived through; one whose days are missing fails."""
    return [Story(name, expected, *_told(story, days)) for name, expected, story in STORIES]


def _told(story: Callable[[Sequence[Seen]], Told], days: Sequence[Seen]) -> Told:
    try:
        return story(days)
    except (LookupError, StopIteration, ValueError, ZeroDivisionError) as error:
        return f"not seen to its end: {error!r}", False


def _weekly_files(days: Sequence[Seen]) -> Told:
    runs = [(day, run) for day in days for run in day.runs if run["dag_id"] == WEEKLY]
    outcomes = [str(run["report"].get("outcome")) for _, run in runs]
    lost, fetched = sum(run["lost"] for _, run in runs), [run["fetched"] for _, run in runs]
    ok = (
        fetched == [1, 1, 1, 1] and not lost and set(outcomes) <= {"promoted", "rejected"} and outcomes[0] == "promoted"
    )
    return f"{', '.join(outcomes)}; {lost} rows lost", ok


def _harmless_fluctuation(days: Sequence[Seen]) -> Told:
    calm = [day for day in days if day.number < plan.DRIFT]
    acted = [day for day in calm if {day.core["decision"], (day.dag or {}).get("decision")} & {"retrain", "label"}]
    odd = days[plan.CAMPAIGN]
    told = f"{odd.core['reason']}; {len(acted)} days before the drift on which something was to be done"
    ok = not acted and odd.core["decision"] == "nothing" and odd.dag is not None and odd.dag["decision"] == "nothing"
    return told, ok


def _poisoned_upload(days: Sequence[Seen]) -> Told:
    (event,) = [one for one in days[plan.POISON].events if one.by == RETRAINING]
    (run,) = [one for one in days[plan.POISON].runs if one["dag_id"] == RETRAINING]
    stayed = days[plan.POISON].versions == days[plan.POISON - 1].versions
    ok = event.kind == "rejected" and run["tasks"]["rollback_model"] == "success" and stayed
    return f"{event.kind}: {event.told}", ok


def _drift(days: Sequence[Seen]) -> Told:
    alarms = [day for day in days if any(event.kind == "alarm" for event in day.events)]
    (decided,) = [day for day in days if day.dag and day.dag["decision"] == "retrain"]
    before = [day for day in alarms if day.number < plan.DRIFT]
    after = decided.number - plan.DRIFT + 1
    told = f"after {after} days: {decided.core['reason']}; {len(before)} alarms before it"
    return told, 0 < after <= FOUND_WITHIN_DAYS and not before


def _retraining(days: Sequence[Seen]) -> Told:
    day, event = _of(days, RETRAINING, "promoted")
    calm = _mean([one.true for one in days if one.number < plan.DRIFT])
    drifted = _mean([one.true for one in days if plan.DRIFT <= one.number <= day.number])
    after = _mean([one.true for one in days if day.number < one.number < plan.FORCED])
    told = f"version {event.version}; true accuracy {calm:.1%} before the drift, {drifted:.1%} in it, {after:.1%} after"
    ok = calm - drifted >= LEAST_DROP and after - drifted >= LEAST_GAIN
    return told, ok


def _bad_champion(days: Sequence[Seen]) -> Told:
    day = days[plan.FORCED]
    forced, back = _event(day, "forced"), _event(day, "rolled_back")
    before = days[plan.FORCED - 1].versions
    watched = [run["state"] for run in day.runs if run["dag_id"] == WATCH]
    ok = [back.version] == before and day.versions == sorted([*before, str(forced.version)], key=int)
    ok = ok and watched == ["success"] and days[plan.FORCED + 1].versions == before
    told = f"version {forced.version} answered, {back.told}; the day's true accuracy {day.true:.1%}"
    return told, ok


def _late_labels(days: Sequence[Seen]) -> Told:
    shown = [day for day in days if day.value("accuracy.live_low") is not None]
    held = 0
    for day in shown:
        # Its champion's days whose labels have come: all but the last, by whose end they had not.
        mine = [one.true for one in days if one.number < day.number and one.versions == [day.core["champion"]]]
        true = _mean(mine or [day.true])
        low, high = day.value("accuracy.live_low"), day.value("accuracy.live_high")
        held += low is not None and high is not None and low <= true <= high
    told = f"shown on {len(shown)} days, true within its interval on {held}"
    return told, len(shown) >= plan.DAYS // 2 and held >= 0.9 * len(shown)


def _estimated(days: Sequence[Seen]) -> Told:
    calm = [day for day in days if day.number < plan.DRIFT]
    off, unlike = [], 0
    for day in calm:
        guess, error = day.value("accuracy.estimated"), day.value("accuracy.estimated_error")
        unlike += (guess is not None) != (error is not None and error <= estimate.MOST_ERROR)
        off += [] if guess is None else [abs(guess - day.true)]
    told = f"shown on {len(off)} of {len(calm)} days before the drift"
    told += f", off by {100 * _mean(off):.1f} points on average" if off else ": its error is larger"
    return told, bool(calm) and not unlike and (not off or _mean(off) <= MOST_OFF)


def _every_day(days: Sequence[Seen]) -> Told:
    by_dag = [day for day in days if day.dag]
    failed = [day.date for day in by_dag if day.dag and day.dag["state"] != "success"]
    other = [
        day.date for day in by_dag
        if day.dag and day.core["champion"] and day.dag["decision"] != day.core["decision"]
    ]  # fmt: skip
    told = (
        f"{len(days)} by the core, {len(by_dag)} by {VALIDATION}; {len(failed)} failed, {len(other)} decided otherwise"
    )
    ok = len(days) == plan.DAYS and len(by_dag) >= LEAST_DAG_DAYS and not failed and not other
    return told, ok


STORIES: tuple[tuple[str, str, Callable[[Sequence[Seen]], Told]], ...] = (
    (
        "weekly files",
        "four files by FTP are fetched once each, all rows are in the table, each trains a model that is decided on",
        _weekly_files,
    ),
    (
        "harmless fluctuation",
        "a day on which refunds come four times as often changes nothing: no decision to retrain or label, no training",
        _harmless_fluctuation,
    ),
    (
        "poisoned upload",
        "a file of wrong labels trains a model that is rejected; the champion stays",
        _poisoned_upload,
    ),
    (
        "drift found",
        "the drift is found within five days, and not before it begins; the decision is to retrain",
        _drift,
    ),
    (
        "retrained and promoted",
        "the retraining that the drift starts is promoted, and answers better than the model before",
        _retraining,
    ),
    (
        "bad champion",
        "a bad model that somebody forces is found by the watch, and the champion before it is back on the same day",
        _bad_champion,
    ),
    (
        "late labels",
        "labels that come a day later tell the live accuracy, whose interval holds what is true of the champion's days",
        _late_labels,
    ),
    (
        "estimated accuracy",
        "before the drift the accuracy is estimated without labels, within five points of what is true, wherever the "
        "estimate's error on shifted golden rows is at most two points",
        _estimated,
    ),
    (
        "every day",
        "each day is checked by the core, at least eight by the DAG, whose decisions are the core's",
        _every_day,
    ),
)
"""Name, what is expected, and how that is seen."""


def _of(days: Sequence[Seen], by: str, kind: str) -> tuple[Seen, Event]:
    return next((day, event) for day in days for event in day.events if (event.by, event.kind) == (by, kind))


def _event(day: Seen, kind: str) -> Event:
    return next(event for event in day.events if event.kind == kind)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
