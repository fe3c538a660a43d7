"""What the tasks of ``data_validation_dag`` do: what came on a day is checked, and the results are kept and told."""
# Only imported inside tasks.

import logging
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowFailException
from airflow.models import DagRun
from sqlalchemy.engine import Engine

from include import alerts, lake, objects
from include.alerts import Alert
from include.markdown import plain
from include.monitoring import (
    assessment,
    checks,
    deciding,
    domain,
    estimate,
    labels,
    profiles,
    report,
    results,
    traffic,
)
from include.monitoring.answers import DaySums
from include.monitoring.assessment import Assessment
from include.monitoring.checks import Check
from include.monitoring.deciding import Decided
from include.monitoring.decision import Rules
from include.monitoring.domain import Difference
from include.monitoring.report import Day
from include.monitoring.traffic import Champion
from include.orchestration import arrivals, gauges, learnable, notes
from include.orchestration.warehouse import warehouse
from include.registry import ledger
from include.settings.monitoring import MonitoringSettings

logger = logging.getLogger(__name__)

DAG_ID = "data_validation_dag"
ACTOR = f"dag:{DAG_ID}"
GAUGES = {
    "drift.score": "drift_score",
    "accuracy.live": "live_accuracy",
    "accuracy.estimated": "estimated_accuracy",
}
"""The checks whose values are metrics, too."""
SHOWN_CHECKS = 5
MOST_EVENTS = 200


def day_of(dag_run: DagRun, wanted: str | None) -> date:
    """The day that a run is about: the one that is wanted, else the last whole one."""
    return date.fromisoformat(wanted) if wanted else dag_run.data_interval_start.astimezone(UTC).date()


def now_of(dag_run: DagRun, day: date) -> datetime:
    """When a run decides: after its day, and after it was asked for; repeated, at the same time."""
    after = datetime.combine(day + timedelta(days=1), time.min, UTC)
    by_hand = dag_run.run_type == "manual"
    asked: datetime = dag_run.logical_date if by_hand else dag_run.data_interval_end
    return max(after, asked)


def rules() -> Rules:
    """The settings' rules for when a drift may start a retraining."""
    config = MonitoringSettings()
    return Rules(config.drift_cool_down_days, config.drift_retrainings_a_month, config.drift_least_new_rows)


class Validation:
    """The checks and the decision of one run of ``data_validation_dag``, about a model's day."""

    def __init__(self, dag_run: DagRun, model: str, wanted: str | None) -> None:
        self.run, self.model = dag_run, model
        self.day = day_of(dag_run, wanted)
        today = datetime.now(UTC).date()
        if self.day > today:
            raise AirflowFailException(f"day: {self.day} has not come yet, today is {today} (UTC)")
        self.is_over = self.day < today
        self.now = now_of(dag_run, self.day)
        self.acts = self.is_over and not deciding.is_long_ago(self.day, self.now)
        self.engine: Engine = warehouse()
        self.champion = traffic.champion_of(model, self.engine, self.now)

    def enter(self, found: Sequence[Check], *, anew: bool = False) -> dict[str, int]:
        """Enters checks, ``anew`` in place of all of the day's; returns how many there are of each verdict."""
        results.enter(self.engine, self.model, self.day, found, anew=anew)
        gauges.show(self.model, **{GAUGES[one.name]: one.value for one in found if one.name in GAUGES})
        for one in found:
            log = logger.warning if one.verdict == "failed" else logger.info
            log("%s %s: %s", one.name, one.verdict.replace("_", " "), one.told)
        verdicts = [one.verdict for one in found]
        return {verdict: verdicts.count(verdict) for verdict in ("passed", "failed", "not_checked")}

    def check_schema(self) -> dict[str, int]:
        """Gathers what came. Raises AirflowFailException if a source has not the columns that it should have."""
        arrived = arrivals.gather(self.model, self.day, self.champion, self.engine, self.run.run_id)
        counts = self.enter(arrived.schema, anew=True)  # a day without drift has no row of one found before
        if wrong := [one for one in arrived.schema if one.verdict == "failed"]:
            told = "; ".join(f"{one.name}: {one.told}" for one in wrong)
            self.report("Schema broken", f"The checks have stopped: {told}", None, [], None)
            raise AirflowFailException(
                f"{told}. Nothing of {self.day} was checked. Mend what writes it, or move the files away, and clear "
                "this task"
            )
        return counts

    def check_quality(self) -> dict[str, int]:
        """Row counts, missing values, duplicates, and what the intake refused."""
        samples, now = arrivals.staged(self.model, self.day, self.run.run_id)
        return self.enter(checks.quality(samples, now, profiles.past(self.model, self.day)))

    def check_distributions(self) -> dict[str, int]:
        """Labels, lengths, languages and tokens beside the weeks before; drift; accuracy with and without labels."""
        samples, now = arrivals.staged(self.model, self.day, self.run.run_id)
        known = self.champion.labels if self.champion else ()
        found = checks.distributions(samples, now, profiles.past(self.model, self.day), known)
        if self.champion is None:
            why = "there is no champion yet"
            return self.enter([*found, checks.not_checked("drift.score", why)])
        kept, assessed = self.assess(self.champion)
        found += checks.drift_checks(assessed)
        guess = estimate.estimate(self.champion, kept, assessed, self.engine)
        live = labels.live_accuracy(self.model, self.champion.version, self.champion.since, self.now)
        found += estimate.accuracy_checks(guess, live)
        if assessed.alarms:
            found.append(self._look_for_difference(assessed))
        return self.enter(found)

    def detect_anomalies(self) -> dict[str, int]:
        """What is out of the usual of the last four weeks."""
        samples, now = arrivals.staged(self.model, self.day, self.run.run_id)
        return self.enter(checks.anomalies(samples, now, profiles.past(self.model, self.day)))

    def assess(self, champion: Champion) -> tuple[list[DaySums], Assessment]:
        """The champion's days and what the drift test says of them; days that are not known yet are scored."""
        seen = [one for one in deciding.alarms(self.engine, self.model) if one.day < self.day]
        first = assessment.begins(champion, seen)
        with traffic.scorer(champion) as score:
            kept, why = traffic.days_until(champion, first, self.day, self.now, score)
        rate, end = MonitoringSettings().false_alarms_per_year, assessment.ends(champion, seen)
        return kept, assessment.assess(kept, rate, why, end)

    def decide(self) -> dict[str, Any]:
        """Decides what follows; writes the report, raises alerts, sets the run's note. Returns what a trigger needs."""
        if self.champion is None:
            told = "There is no champion yet: what came was checked, and there is no traffic to watch."
            self._conclude("No champion", told, None, [], None)
            return {"decision": "nothing", "decision_id": "", "reason": told, "starts": False}
        kept, assessed = self.assess(self.champion)
        config = MonitoringSettings()
        new_rows = learnable.new_rows(self.model)
        decided = deciding.decide_day(
            self.champion, self.engine, self.day, self.now, assessed, new_rows, rules(), actor=ACTOR, holds=self.is_over
        )
        difference = self._staged_difference() if assessed.alarms else None
        listed = self._ask_for_labels() if decided.verb == "label" else ""
        self._keep_unsure()
        headline = {"retrain": "Drift: retrain", "label": "Drift: label", "wait": "Drift: wait"}.get(decided.verb, "")
        self._conclude(headline, decided.entry.reason, assessed, kept, difference)
        if self.acts:
            self._tell(decided, difference, listed, starts=config.retrain_on_drift)
        starts = decided.verb == "retrain" and config.retrain_on_drift and self.acts
        found = {"decision": decided.verb, "decision_id": decided.entry.decision_id, "reason": decided.entry.reason}
        return found | {"starts": starts}

    def _conclude(
        self,
        headline: str,
        sentence: str,
        assessed: Assessment | None,
        kept: Sequence[DaySums],
        found: Difference | None,
    ) -> None:
        failed = [
            one for one in results.newly_failed(self.engine, self.model, self.day) if not one.name.startswith("drift.")
        ]
        wrong = [one for one in results.of_day(self.engine, self.model, self.day) if one.verdict == "failed"]
        uri = self.report(headline or ("Checks failed" if wrong else "As usual"), sentence, assessed, kept, found)
        told = (
            f"{len(wrong)} checks failed ({', '.join(one.name for one in wrong[:SHOWN_CHECKS])})"
            if wrong
            else "no check failed"
        )
        notes.set_note(
            self.run.dag_id, self.run.run_id, f"**{self.day}** — {plain(f'{sentence}; {told}')} {plain(uri)}"
        )
        if failed and self.is_over:
            alerts.raise_alert(self._quality_alert(failed), self.model)

    def _quality_alert(self, failed: Sequence[Check]) -> Alert:
        lines = [f"{one.name}: {one.told}" for one in failed]
        names = ", ".join(one.name for one in failed[:SHOWN_CHECKS])
        title = f"{self.model}, {self.day}: {len(failed)} checks failed: {names}"
        text = "\n".join([*lines, "", "They had not failed on the day before."])
        return Alert("quality", f"{self.model} {self.day}", title, text, self._links())

    def report(
        self,
        headline: str,
        sentence: str,
        assessed: Assessment | None,
        kept: Sequence[DaySums],
        found: Difference | None,
    ) -> str:
        """Writes the day's page and pictures in place of earlier ones; returns the page's URI."""
        first = self.day - timedelta(days=report.SHOWN_DAYS)
        version = self.champion.version if self.champion else ""
        day = Day(
            model=self.model, day=self.day, version=version, headline=headline, sentence=sentence,
            checks=results.of_day(self.engine, self.model, self.day),
            history=results.since(self.engine, self.model, first, self.day),
            assessment=assessed, kept=kept, difference=found, events=self._events(first),
            ids={"Model": self.model, "Champion": version or "none yet", "Day": self.day.isoformat(),
                 "DAG run": f"{self.run.dag_id} {self.run.run_id}", "Kept sums": lake.monitoring(self.model)},
        )  # fmt: skip
        uri = lake.day_report(self.model, self.day.isoformat(), "day.html")
        with tempfile.TemporaryDirectory() as folder:
            report.write_day_report(day, Path(folder))
            objects.upload(Path(folder), uri.rsplit("/", 1)[0])
        return uri

    def _events(self, first: date) -> dict[str, list[date]]:
        moves = ledger.entries(self.engine, self.model, verbs=ledger.MOVES, limit=MOST_EVENTS)
        decided = [one.day for one in deciding.decisions(self.engine, self.model) if one.verb in deciding.ACTED_ON]
        promoted = [one.decided_at.astimezone(UTC).date() for one in moves]
        found = {"another champion": promoted, "drift acted on": decided}
        return {name: sorted({day for day in days if first <= day <= self.day}) for name, days in found.items()}

    def _look_for_difference(self, assessed: Assessment) -> Check:
        """Names what has changed, and stages it with the texts that are worth most to be labelled."""
        before, now = domain.rows_around(self.model, assessed)
        found = domain.differ([row["text"] for row in before], [row["text"] for row in now])
        worth = domain.worth_labelling(now, None if found is None else found.novelty)
        objects.write_bytes(lake.staging(self.run.run_id, "to_label.csv"), domain.as_csv(worth))
        told = {"auc": found.auc, "words": found.words, "typical": found.typical} if found else {}
        objects.write_json(lake.staging(self.run.run_id, "difference.json"), told | {"rows": len(worth)})
        if found is None:
            why = f"{len(before)} texts before and {len(now)} now are in the log: too few to say what has changed"
            return checks.not_checked("drift.domain", why)
        told_words = ", ".join(found.words)
        return Check(
            name="drift.domain", value=found.auc, threshold=None, verdict="passed",
            told=f"new texts are told from old ones with an AUC of {found.auc:.2f} by words as {told_words}",
        )  # fmt: skip

    def _staged_difference(self) -> Difference | None:
        uri = lake.staging(self.run.run_id, "difference.json")
        found = objects.read_json(uri) if objects.exists(uri) else {}
        if "auc" not in found:
            return None
        return Difference(found["auc"], tuple(found["words"]), tuple(found["typical"]), ())

    def _ask_for_labels(self) -> str:
        """Puts the texts that are to be labelled where people find them; returns where, or "" if there are none."""
        uri = lake.staging(self.run.run_id, "to_label.csv")
        staged = lake.staging(self.run.run_id, "difference.json")
        if not objects.exists(staged) or not objects.read_json(staged)["rows"]:
            return ""
        return objects.write_bytes(lake.monitoring(self.model, f"to_label/{self.day}.csv"), objects.read_bytes(uri))

    def _keep_unsure(self) -> None:
        """Puts the day's texts of which the champion is least sure where the console asks for labels of them."""
        rows = traffic.some_rows(self.model, self.day, domain.MOST_TEXTS).to_pylist()
        if worth := domain.worth_labelling(rows):
            objects.write_bytes(lake.monitoring(self.model, f"unsure/{self.day}.csv"), domain.as_csv(worth))

    def _tell(self, decided: Decided, difference: Difference | None, listed: str, *, starts: bool) -> None:
        """One alert for what is acted on, one for a budget that is used up; a drift that waits was told before."""
        because = decided.entry.facts.get(deciding.BECAUSE, "")
        if decided.verb == "nothing" or (decided.verb == "wait" and because != "budget"):
            return
        lines = [decided.entry.reason.rstrip(".") + "."]
        if difference:
            lines += ["", f"Typical words of what is new: {', '.join(difference.words)}.", "Typical texts:"]
            lines += [f"- {text[:200]}" for text in difference.typical]
        what = {
            "retrain": "a new model is trained" if starts else "BERT_RETRAIN_ON_DRIFT is false, so nothing is started",
            "label": f"label the texts that are worth most ({listed})" if listed else "label some of its new texts",
            "wait": "the month's retrainings are used up",
        }[decided.verb]
        if listed:
            lines += ["", f"To label: fill in the column label of {listed} and upload the file."]
        links = self._links() | ({"texts to label": listed} if listed else {})
        kind, key = ("budget", decided.waits_for) if decided.verb == "wait" else ("drift", decided.entry.decision_id)
        title = f"The traffic of {self.model} has drifted: {what}"
        alerts.raise_alert(Alert(kind, f"{self.model} {key}", title, "\n".join(lines), links), self.model)

    def _links(self) -> dict[str, str]:
        return {
            "report": lake.day_report(self.model, self.day.isoformat(), "day.html"),
            "run": f"airflow:{self.run.dag_id}/{self.run.run_id}",
        }
