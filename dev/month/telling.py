"""Lives through the month day by day, on a stack that is up, and writes down what was seen of each day."""

import random
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from rich.console import Console

from dev.month import plan
from dev.month.clock import Clock
from dev.month.people import Answer, People
from dev.month.plan import Day
from dev.month.runs import Runs
from dev.month.texts import Message, Messages
from dev.observe import Observer
from dev.source_servers import Host
from dev.stack import Stack

LOGGED_WITHIN_SECONDS = 1.0
RETRAINING, VALIDATION, WEEKLY, WATCH = "model_retraining_dag", "data_validation_dag", "weekly_etl", "watch_champion"


@dataclass
class Event:
    """Something that happened on a day; ``kind`` is promoted, rejected, rolled_back, forced, alarm or another end."""

    kind: str
    by: str
    told: str
    version: str | None = None


@dataclass
class Seen:
    """What was seen of a day.

    ``true`` is the share of right answers, which only the demo knows; the rest is what the night's checks say.
    """

    number: int
    date: str
    week: int
    texts: int
    true: float = 0.0
    versions: list[str] = field(default_factory=list)
    corrected: int = 0
    core: dict[str, Any] = field(default_factory=dict)
    dag: dict[str, Any] | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def value(self, check: str) -> float | None:
        """Of one of the night's checks; None if it was not checked."""
        found = self.core.get("values", {}).get(check)
        return None if found is None else float(found)


class Month:
    """The month, on a stack whose programs follow its clock."""

    def __init__(self, stack: Stack, runs: Runs, clock: Clock, people: People, ftp: Host, console: Console) -> None:
        self.stack, self.runs, self.clock, self.people, self.ftp, self.console = (
            stack,
            runs,
            clock,
            people,
            ftp,
            console,
        )
        self.observer = Observer(stack)
        self.messages, self.dice = Messages(), random.Random(4)
        self.drawn: list[dict[str, str]] = []
        self.days: list[Seen] = []
        self.begun = time.monotonic()

    def live(self, days: Iterable[Day]) -> list[Seen]:
        """All days, one after the other."""
        for day in days:
            self.days.append(Seen(day.number, day.date.isoformat(), day.week, day.texts))
            with self.console.status(f"{day.date}: day {day.number + 1} of {plan.DAYS}"):
                self._live(day, self.days[-1])
            self._show(self.days[-1])
        return self.days

    def landed_texts(self) -> set[str]:
        """What the curated table has."""
        engine = sa.create_engine(self.stack.warehouse_url, poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            return set(connection.execute(sa.text("SELECT text FROM training_examples")).scalars())

    def decided(self, day: str) -> str | None:
        """The ledger's decision about a day's traffic; None if there is none."""
        engine = sa.create_engine(self.stack.warehouse_url, poolclass=sa.pool.NullPool)
        wanted = (
            "SELECT facts->>'decision' FROM promotion_ledger WHERE facts->>'day' = :day AND verb = 'drift_decision'"
        )
        with engine.connect() as connection, suppress(sa.exc.ProgrammingError):
            found: str | None = connection.execute(sa.text(wanted), {"day": day}).scalars().first()
            return found
        return None

    def _live(self, day: Day, seen: Seen) -> None:
        if day.weekly_rows:
            self._week_begins(day, seen)
        self.clock.set(day.at(9))
        self.people.label(self.drawn)
        if day.number == plan.POISON:
            self._poison(day, seen)
        self.clock.set(day.at(12))
        messages = self.messages.draw(day.texts, german=day.german, weights=day.weights)
        answers = self._forced(day, seen, messages) if day.number == plan.FORCED else self._ask(messages)
        seen.true = sum(one.right for one in answers) / len(answers)
        seen.versions = sorted({one.version for one in answers}, key=int)
        self.clock.set(day.at(18))
        if day.number >= plan.DRIFT:
            minded = [one for one in answers if self.dice.random() < plan.CORRECTED]
            seen.corrected = self.people.correct(minded)
        time.sleep(LOGGED_WITHIN_SECONDS)
        self.clock.set(day.at(20))
        self.drawn = self.people.draw(plan.SAMPLED)
        self.clock.set(day.at(24, 10))
        self._night(day, seen)

    def _ask(self, messages: list[Message]) -> list[Answer]:
        self.people.wait_for(str(self.observer.champion()))
        return self.people.ask(messages)

    def _week_begins(self, day: Day, seen: Seen) -> None:
        """The desk's file of the week before lies on its FTP server; weekly_etl fetches it."""
        german = plan.GERMAN_ROWS if day.number > plan.DRIFT else 0.0
        rows = self.messages.draw(day.weekly_rows, german=german)
        content = "\n".join(["text,label", *(f'"{one.text}",{one.label}' for one in rows)])
        self.ftp.write(f"out/week-{day.week}.csv", content, (day.at(0) - timedelta(days=1)).timestamp())
        self.people.truth |= {one.text: one.label for one in rows}
        self.clock.set(day.at(0, 30))
        run = self._follow(seen, self.runs.dag(WEEKLY, day.at(0)))
        run["fetched"] = self.ftp.asked.count(f"week-{day.week}.csv")
        run["lost"] = len({one.text for one in rows} - self.landed_texts())

    def _poison(self, day: Day, seen: Seen) -> None:
        """Somebody uploads a file whose labels are all wrong, and asks for a training on it."""
        rows = self.messages.draw(plan.POISONED_ROWS)
        labels = sorted({one.label for one in rows})
        wrong = {label: labels[(at + 1) % len(labels)] for at, label in enumerate(labels)}
        content = "\n".join(["text,label", *(f'"{one.text}",{wrong[one.label]}' for one in rows)])
        self.stack.s3.put_object(Bucket=self.observer.bucket, Key="incoming/poisoned.csv", Body=content.encode())
        self.clock.set(day.at(10))
        self._follow(seen, self.runs.dag(RETRAINING, day.at(10), reason="a file was uploaded"))

    def _forced(self, day: Day, seen: Seen, messages: list[Message]) -> list[Answer]:
        """Somebody makes a bad model the champion: it answers until the watch looks."""
        half = len(messages) // 2
        before = str(self.observer.champion())
        version = self.runs.force_bad_champion()
        seen.events.append(Event("forced", "person", f"version {version}, which mixes the labels up", version))
        answers = self._ask(messages[:half])
        self.clock.set(day.at(13))
        watched = self.runs.triggered(WATCH)
        after = str(self.observer.champion())
        if watched:
            seen.runs.append(watched)
        if after == before:
            seen.events.append(Event("rolled_back", WATCH, f"version {before} is back", before))
        return [*answers, *self._ask(messages[half:])]

    def _night(self, day: Day, seen: Seen) -> None:
        """The core checks each day; the DAG does on some, and whenever there is something to be decided."""
        seen.core = self.runs.core(day.date, day.at(24, 10))
        if seen.core.get("alarms"):
            seen.events.append(Event("alarm", "core", seen.core["reason"]))
        if day.number not in plan.WATCHED_BY_DAG and seen.core["decision"] == "nothing":
            return
        self.clock.set(day.at(24, 15))
        found = self.runs.dag(VALIDATION, day.at(24, 10))
        seen.dag = {"state": found["state"], "tasks": found["tasks"], "decision": self.decided(seen.date)}
        if found["tasks"].get("trigger_retraining") == "success":
            self.clock.set(day.at(24, 30))
            if run := self.runs.triggered(RETRAINING):
                self._follow(seen, run)

    def _follow(self, seen: Seen, run: dict[str, Any]) -> dict[str, Any]:
        """Enters how a training ended; has a champion watched whose DAG does not do so itself."""
        seen.runs.append(run)
        report = run["report"]
        told = str(report.get("reason", f"it ended as {run['state']}"))
        seen.events.append(Event(report.get("outcome", "failed"), run["dag_id"], told, report.get("model_version")))
        if run["dag_id"] == WEEKLY and report.get("outcome") == "promoted" and (watched := self.runs.triggered(WATCH)):
            seen.runs.append(watched)
        return run

    def _show(self, seen: Seen) -> None:
        live, guess = (seen.value(f"accuracy.{name}") for name in ("live", "estimated"))
        told = f"true {seen.true:.1%}, estimated {_percent(guess)}, live {_percent(live)}"
        by = "core and DAG" if seen.dag else "core"
        spent = f"{(time.monotonic() - self.begun) / 60:4.1f} min"
        self.console.print(f"{spent}  {seen.date}  {seen.texts} texts, {told}; {by}: {seen.core['decision']}")
        for event in seen.events:
            self.console.print(f"          {event.kind}: {event.told}", markup=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def as_json(days: Iterable[Seen]) -> list[dict[str, Any]]:
    """Days as month.json has them: of a run's report only how it ended."""
    found = [asdict(one) for one in days]
    for day in found:
        for run in day["runs"]:
            run["report"] = {key: run["report"].get(key) for key in ("outcome", "model_version", "rows", "golden")}
    return found
