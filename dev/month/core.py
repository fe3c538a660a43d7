"""A day's checks without Airflow: what ``data_validation_dag`` finds, by the same functions, which take the time."""

from datetime import date, datetime
from typing import Any

from include.monitoring import assessment, checks, deciding, estimate, labels, profiles, results, traffic
from include.monitoring.checks import Check
from include.monitoring.decision import Rules
from include.monitoring.traffic import Champion
from include.orchestration import arrivals, learnable
from include.orchestration.warehouse import warehouse
from include.settings import settings
from include.settings.monitoring import MonitoringSettings


def check_day(day: date, now: datetime) -> dict[str, Any]:
    """Checks a day and enters what is found in ``monitoring_results``; the decision is made, and not entered."""
    model, engine = settings().model_name, warehouse()
    champion = traffic.champion_of(model, engine, now)
    arrived = arrivals.gather(model, day, champion, engine, f"core__{day}")
    past = profiles.past(model, day)
    found = [*arrived.schema, *checks.quality(arrived.samples, arrived.profiles, past)]
    known = champion.labels if champion else ()
    found += checks.distributions(arrived.samples, arrived.profiles, past, known)
    found += checks.anomalies(arrived.samples, arrived.profiles, past)
    told: dict[str, Any] = {"champion": None, "decision": "nothing", "reason": "there is no champion yet"}
    if champion:
        of_champion, told = _champion_checks(champion, day, now, engine)
        found += of_champion
    results.enter(engine, model, day, found)
    return told | {
        "failed": sorted(one.name for one in found if one.verdict == "failed"),
        "values": {one.name: one.value for one in found if one.name.startswith(("accuracy.", "drift.score"))},
    }


def _champion_checks(champion: Champion, day: date, now: datetime, engine: Any) -> tuple[list[Check], dict[str, Any]]:
    """Drift and accuracy of the champion's answers, and what would follow from them."""
    config = MonitoringSettings()
    seen = [one for one in deciding.alarms(engine, champion.model) if one.day < day]
    with traffic.scorer(champion) as score:
        kept, why = traffic.days_until(champion, assessment.begins(champion, seen), day, now, score)
    assessed = assessment.assess(kept, config.false_alarms_per_year, why, assessment.ends(champion, seen))
    guess = estimate.estimate(champion, kept, assessed, engine)
    live = labels.live_accuracy(champion.model, champion.version, champion.since, now)
    decided = deciding.decide_day(
        champion, engine, day, now, assessed, learnable.new_rows(champion.model),
        Rules(config.drift_cool_down_days, config.drift_retrainings_a_month, config.drift_least_new_rows),
        actor="demo-month", holds=False,
    )  # fmt: skip
    told = {
        "champion": champion.version,
        "decision": decided.verb,
        "reason": decided.entry.reason,
        "alarms": sorted({one.name for one in assessed.alarms}),
        "labelled": live.texts,
    }
    return [*checks.drift_checks(assessed), *estimate.accuracy_checks(guess, live)], told
