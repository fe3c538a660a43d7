"""Two weeks of the weekly ETL on a fresh stack: sources on real servers, and each story checked where it ends.

The DAG's word is not enough: servers know what they were asked for, rows are counted in the warehouse, landed files
and rejected rows are read from S3, the champion is MLflow's word.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import sqlalchemy as sa
import yaml
from rich.console import Console
from rich.table import Table

from dev import sample_data
from dev.observe import OVER, Observer
from dev.source_servers import PASSWORD, USER, Host, ftp_server, http_server, mongo_server, sftp_server
from dev.stack import Stack, fresh, wait_for_dags
from dev.state import REPOSITORY
from include.ingestion.landing import week_of
from include.lake import slug

RESULT = REPOSITORY / ".local" / "week.json"
DAG = "weekly_etl"
LONGEST_RUN_SECONDS = 1800
PART = 160
NOT_SHOWN = "MongoDB itself: what is shown is a stand-in that speaks its protocol (nx-27017)"
SOURCES: list[dict[str, Any]] = [
    {"name": "support-desk", "kind": "ftp", "connection": "week_ftp", "path": "/out"},
    {"name": "shop", "kind": "sftp", "connection": "week_sftp", "path": "/"},
    {"name": "website", "kind": "http", "connection": "week_http", "paths": ["forms.jsonl"], "auth": "bearer"},
    {
        "name": "tickets", "kind": "sql", "connection": "warehouse", "table": "tickets", "cursor": "changed_at",
        "columns": {"text": "body", "label": "team"},
    },
    {
        "name": "chats", "kind": "mongo", "connection": "week_mongo", "database": "desk", "collection": "chats",
        "cursor": "_id", "columns": {"text": "body", "label": "team"},
    },
]  # fmt: skip


@dataclass
class Story:
    """One line of week.json."""

    name: str
    expected: str
    outcome: str
    ok: bool


@dataclass
class Files:
    """The servers, and what lies on them."""

    ftp: Host
    sftp: Host
    http: Host
    warehouse: sa.engine.Engine
    mongo_port: int

    def csv(self, rows: pd.DataFrame) -> str:
        """Rows as a file."""
        return str(rows[["text", "label"]].to_csv(index=False))

    def tickets(self, rows: pd.DataFrame, at: datetime) -> None:
        """Rows in the table that is a source."""
        with self.warehouse.begin() as connection:
            connection.execute(
                sa.text("CREATE TABLE IF NOT EXISTS tickets (id text, body text, team text, changed_at timestamptz)")
            )
            for number, (text, label) in enumerate(zip(rows["text"], rows["label"], strict=True)):
                values = {"id": f"{number:06}", "body": text, "team": label, "at": at + timedelta(seconds=number)}
                connection.execute(sa.text("INSERT INTO tickets VALUES (:id, :body, :team, :at)"), values)

    def chats(self, rows: pd.DataFrame) -> None:
        """Documents in the collection that is a source."""
        from pymongo import MongoClient

        with MongoClient(f"mongodb://127.0.0.1:{self.mongo_port}/") as client:
            found = zip(rows["text"], rows["label"], strict=True)
            client["desk"]["chats"].insert_many([{"body": text, "team": label} for text, label in found])


class Weeks:
    """Tells the stories on a stack that is up."""

    def __init__(self, stack: Stack, files: Files, console: Console) -> None:
        self.stack, self.files, self.console = stack, files, console
        self.observer = Observer(stack)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        last = today - timedelta(days=(today.weekday() + 1) % 7)  # a week ends when Sunday begins
        # Not midnight: the run that the scheduler started when the stack came up has that date.
        self.ends = [last - timedelta(days=7, hours=1), last - timedelta(hours=1)]
        self.stories: list[Story] = []
        self.facts: list[dict[str, Any]] = []

    def expect(self, name: str, expected: str, outcome: str, ok: bool) -> None:
        """Enters a story, and shows it."""
        self.stories.append(Story(name, expected, outcome, ok))
        mark = "[green]ok[/]" if ok else "[bold red]NOT OK[/]"
        self.console.print(f"  {mark} {name}: {outcome}", soft_wrap=True)

    def run(self, number: int) -> dict[str, Any]:
        """Starts the run of a week by hand, waits for its end, and returns what the week's report knows."""
        end = self.ends[number]
        answer = self.stack.airflow.post(f"dags/{DAG}/dagRuns", json={"logical_date": end.isoformat()})
        run_id = answer.raise_for_status().json()["dag_run_id"]
        self.console.print(f"\n[bold]{week_of(end)}[/]  {run_id}")
        begun, shown = time.monotonic(), set()
        while True:
            state = self.stack.airflow.get(f"dags/{DAG}/dagRuns/{quote(run_id)}").raise_for_status().json()
            tasks = self.stack.airflow.get(f"dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances").json()
            for task in tasks["task_instances"]:
                key = (task["task_id"], task["map_index"], task["state"])
                if task["state"] in ("success", "failed", "skipped", "up_for_retry") and key not in shown:
                    shown.add(key)
                    self.console.print(f"  {time.monotonic() - begun:5.0f} s  {task['task_id']} {task['state']}")
            if state["state"] in OVER or time.monotonic() - begun > LONGEST_RUN_SECONDS:
                break
            time.sleep(2)
        found: dict[str, Any] = {"state": state["state"], "run_id": run_id, "week": week_of(end), "model": None}
        found |= {"files": [], "landed": [], "quality": {}, "merge": {"new": 0, "changed": 0, "known": 0}}
        if state["state"] == "success":
            found |= json.loads(self.observer.read(f"reports/{DAG}/weeks/{week_of(end)}.json"))
        self.facts.append(found)
        return found

    def examples(self) -> pd.DataFrame:
        """The curated table."""
        with self.files.warehouse.connect() as connection:
            return pd.read_sql(sa.text("SELECT text, label, label_version FROM training_examples"), connection)

    def landed(self, source: str) -> list[str]:
        """The names of a source's landed files."""
        keys = self.stack.s3.list_objects_v2(Bucket=self.observer.bucket, Prefix=f"raw/{source}/").get("Contents", [])
        return sorted(item["Key"].split("/", 3)[3] for item in keys if "/_landed/" not in item["Key"])


def tell(weeks: Weeks, name_sources: Callable[[], object]) -> None:
    """Both weeks. Sources are named when the first one begins: the DAG has a schedule then, and a run of its own."""
    files, rows = weeks.files, _messages()
    parts = [rows.iloc[start : start + PART].reset_index(drop=True) for start in range(0, 7 * PART, PART)]
    first, second = (end - timedelta(days=2) for end in weeks.ends)
    forms = _json_lines(parts[2])
    files.ftp.write("out/cases.csv", files.csv(parts[0]), first.timestamp())
    files.sftp.write("orders.csv", files.csv(parts[1]), first.timestamp())
    files.http.write("forms.jsonl", "\n".join([*forms, '{"text": "n/a", "label": "x"}']), first.timestamp())
    files.tickets(parts[3], first)
    files.chats(parts[6])
    files.ftp.breaks = 1  # the first transfer ends half-way
    name_sources()
    _first_week(weeks, weeks.run(0), pd.concat([*parts[:4], parts[6]]))

    asked = len(files.ftp.asked)
    files.sftp.write("orders-2.csv", files.csv(parts[4]), second.timestamp())
    files.ftp.write("out/repeated.csv", files.csv(parts[0]), second.timestamp())  # the same rows, another name
    files.ftp.write("out/broken.xlsx", b"no workbook at all", second.timestamp())
    known = sorted(set(parts[1]["label"]))
    wrong = parts[1].head(5)
    wrong = wrong.assign(label=[known[(known.index(label) + 1) % len(known)] for label in wrong["label"]])
    files.tickets(pd.concat([parts[5], wrong]), second)
    more = parts[4].head(3).assign(text=parts[4]["text"].head(3) + " again please")
    files.http.write("forms.jsonl", "\n".join([*forms, *_json_lines(more)]), second.timestamp())
    _second_week(weeks, weeks.run(1), wrong, asked)


def _first_week(weeks: Weeks, week: dict[str, Any], rows: pd.DataFrame) -> None:
    model, table = week["model"] or {}, weeks.examples()
    names = sorted({file["source"] for file in week["files"]})
    wanted = "FTP, SFTP, HTTP, SQL and Mongo's protocol land"
    weeks.expect("five sources", wanted, ", ".join(names) or week["state"], len(names) == len(SOURCES))
    lost = set(rows["text"]) - set(table["text"])
    told = f"{len(table)} texts, {len(lost)} lost"
    weeks.expect("one table", f"all {len(rows)} texts", told, not lost and len(table) == len(rows))
    resumed = any(file["attempts"] > 1 for file in week["landed"])
    weeks.expect("broken transfer", "goes on where it stopped", "resumed" if resumed else "not resumed", resumed)
    lines = weeks.observer.read("curated/training_examples.jsonl") if week["state"] == "success" else b""
    copied = len(lines.splitlines())
    weeks.expect("target", "the table as JSON lines in the bucket", f"{copied} lines", copied == len(table))
    left = week["quality"].get("left_out", {})
    weeks.expect("placeholder", "left out with a reason", str(left), left.get("missing") == 1)
    outcome, champion = model.get("outcome"), weeks.observer.champion()
    told = f"{outcome}, champion {champion}"
    weeks.expect("first model", "promoted, champion v1", told, (outcome, champion) == ("promoted", "1"))


def _second_week(weeks: Weeks, week: dict[str, Any], wrong: pd.DataFrame, asked: int) -> None:
    model, merge = week["model"] or {}, week["merge"]
    again = weeks.files.ftp.asked[asked:].count("cases.csv")
    weeks.expect("unchanged file", "not fetched again", f"asked for {again} times", not again)
    forms = weeks.landed("website")
    weeks.expect("same name, new content", "fetched again", ", ".join(forms), len(forms) == 2)
    reason = next((file["reason"] for file in week["files"] if file["name"] == "broken.xlsx"), "")
    ok = bool(reason) and week["state"] == "success"
    weeks.expect("broken file", "quarantined with its reason, the rest goes on", reason[:80] or "not seen", ok)
    weeks.expect("repeated rows", "known as they were", f"{merge['known']} known", merge["known"] >= PART)
    table = weeks.examples().set_index("text")["label"]
    right = sum(table.get(text) == label for text, label in zip(wrong["text"], wrong["label"], strict=True))
    told = f"{right} of 5, {merge['changed']} changed"
    weeks.expect("corrected labels", "the newest counts", told, right == merge["changed"] == 5)
    runs = weeks.observer.runs()
    weeks.expect("one training a week", "no run of the upload pipeline", f"{len(runs)} runs", not runs)
    outcome, gates = model.get("outcome"), [gate["name"] for gate in model.get("gates", [])]
    ok = outcome in ("promoted", "rejected") and "non_inferiority" in gates
    told = f"{outcome}, champion {weeks.observer.champion()}"
    weeks.expect("second model", "compared with the champion, decided", told, ok)
    key = f"reports/{DAG}/{slug(week['run_id'])}/week.html"
    page = weeks.observer.read(key) if week["state"] == "success" else b""
    weeks.expect("report", "both weeks, with plots", f"{len(page):,} bytes at {key}", page.count(b"<svg") >= 3)


def _messages() -> pd.DataFrame:
    """Messages of which none is almost another: each has a number of its own."""
    rows = sample_data.messages(2000).drop_duplicates("text").head(7 * PART).reset_index(drop=True)
    if len(rows) < 7 * PART:
        rows = pd.concat([rows] * (7 * PART // len(rows) + 1)).head(7 * PART).reset_index(drop=True)
    return rows.assign(text=[f"{text} (case {at})" for at, text in enumerate(rows["text"])])


def _json_lines(rows: pd.DataFrame) -> list[str]:
    return [json.dumps({"text": text, "label": label}) for text, label in zip(rows["text"], rows["label"], strict=True)]


@contextmanager
def _servers(folder: Path, stack: Stack) -> Iterator[Files]:
    """The servers, and Airflow's connections to them."""
    servers: dict[str, Any] = {"ftp": ftp_server, "sftp": sftp_server, "http": http_server}
    with ExitStack() as running:
        hosts: dict[str, Host] = {}
        for kind, server in servers.items():
            (folder / kind).mkdir(parents=True)
            hosts[kind] = running.enter_context(server(folder / kind))
            login = {"password": "t0ken"} if kind == "http" else {"login": USER, "password": PASSWORD}
            extra = json.dumps({"no_host_key_check": True}) if kind == "sftp" else None
            connection = {
                "connection_id": f"week_{kind}", "conn_type": kind, "host": "127.0.0.1", "port": hosts[kind].port,
                "extra": extra, **login,
            }  # fmt: skip
            stack.airflow.post("connections", json=connection).raise_for_status()
        port = running.enter_context(mongo_server())
        mongo = {"connection_id": "week_mongo", "conn_type": "mongo", "host": "127.0.0.1", "port": port}
        stack.airflow.post("connections", json=mongo).raise_for_status()
        yield Files(**hosts, warehouse=sa.create_engine(stack.warehouse_url), mongo_port=port)


def demo_week(state: Path, console: Console) -> int:
    """Runs the demo on a fresh stack, and writes week.json; returns the exit code."""
    begun = time.monotonic()
    listed = state / "sources.yaml"
    # Until the connections are there; what changes the DAG's shape is there from the beginning.
    week: dict[str, Any] = {
        "sources": [],
        "scripts": ["include/scripts/steps/redact.py"],
        "targets": [{"kind": "s3", "uri": "s3://bert/curated", "format": "jsonl"}],
        "quality": {"near_duplicates": False},
    }

    def prepare() -> None:
        listed.write_text(yaml.safe_dump(week))

    with (
        fresh(state, {"BERT_SOURCES": str(listed)}, console, prepare=prepare) as stack,
        _servers(state / "servers", stack) as files,
    ):
        wait_for_dags(stack.airflow, DAG)
        weeks = Weeks(stack, files, console)
        tell(weeks, lambda: listed.write_text(yaml.safe_dump(week | {"sources": SOURCES})))
    ok = all(story.ok for story in weeks.stories)
    result = {
        "ok": ok,
        "seconds": round(time.monotonic() - begun, 1),
        "stories": [asdict(story) for story in weeks.stories],
        "not_shown": [NOT_SHOWN],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False))
    _print(weeks, console)
    console.print(f"See {RESULT.relative_to(REPOSITORY)}. Not shown: {NOT_SHOWN}.")
    return 0 if ok else 1


def _print(weeks: Weeks, console: Console) -> None:
    came = Table("week", "source", "file", "rows", "good", "rejected")
    for week in weeks.facts:
        for file in week["files"]:
            rules = ", ".join(f"{count} {rule}" for rule, count in file["by_rule"].items())
            came.add_row(week["week"], file["source"], file["name"], str(file["rows_in"]), str(file["good"]), rules)
    console.print(came)
    for week in weeks.facts:
        model, merge = week["model"] or {}, week["merge"]
        accuracy = (model.get("golden") or {}).get("accuracy")
        trained = f"{model['outcome']} v{model['version']}, accuracy {accuracy}" if model else "nothing trained"
        console.print(f"{week['week']}: {merge['new']} new, {merge['changed']} changed; {trained}")
    stories = Table("story", "expected", "outcome", "")
    for one in weeks.stories:
        mark = "[green]ok[/]" if one.ok else "[bold red]NOT OK[/]"
        stories.add_row(one.name, one.expected, one.outcome, mark)
    console.print(stories)
