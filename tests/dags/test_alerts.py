"""Alerts from the event to the message: real S3, a mail server, and a server that plays Slack, well and badly."""

import asyncio
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from airflow.decorators import task
from airflow.exceptions import TaskDeferred
from airflow.models import DAG, DagBag, DagRun
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType

from include import alerts, lake, objects
from include.alerts import Alert, delivery, outbox
from include.alerts.delivery import Outlook
from include.orchestration import listening, looking, sending
from include.orchestration.alert_sender import AlertTrigger, SendAlerts, digest
from include.orchestration.alerts import tell_if_timed_out
from include.orchestration.defaults import START, TASK_DEFAULTS
from include.settings import settings
from include.uploads import sealing
from include.uploads.lifecycle import Because, Entry, State, Who
from include.uploads.refusals import Refusal
from tests.unit.registry_services import S3Server, deployment

DAGS = Path(__file__).parents[2] / "dags"
MODEL = "told-of"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass
class Slack:
    """A webhook that answers as it is told to, one answer after the other, and then well."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]] | str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def titles(self) -> list[str]:
        return [message["blocks"][0]["text"]["text"] for message in self.messages]


@pytest.fixture(scope="module")
def server() -> Iterator[Slack]:
    slack = Slack()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = slack.answers.pop(0) if slack.answers else (200, {})
            if answer == "hang":
                slack.over.wait(30)
                return
            if answer == "drip":
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
                for _ in range(20):
                    self.wfile.write(b".")
                    slack.over.wait(0.05)
                return
            status, headers = answer
            if status == 200:
                slack.messages.append(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"ok" if status == 200 else b"no_service")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as listening:
        slack.url = f"http://127.0.0.1:{listening.server_port}/services/T0/B0/x"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield slack
        slack.over.set()
        listening.shutdown()


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    """Real S3 over HTTP, and Airflow's database."""
    server = S3Server()
    server.start()
    with deployment(AWS_ENDPOINT_URL=server.url, BERT_BUCKET="alerts", BERT_MODEL_NAME=MODEL):
        initdb(load_connections=False)
        yield
    server.stop()


@pytest.fixture
def empty(bucket: None) -> None:
    if objects.find("s3://alerts/"):
        objects.filesystem("s3://alerts").rm(f"{lake.root()}/*", recursive=True)
    with create_session() as session:
        session.query(DagRun).delete()


@pytest.fixture
def slack(empty: None, server: Slack, monkeypatch: pytest.MonkeyPatch) -> Slack:
    server.answers.clear()
    server.messages.clear()
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps({"conn_type": "slackwebhook", "password": server.url}))
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.2)
    return server


@dataclass
class Post:
    """A mail server and its inbox."""

    mails: list[Any]
    start: Callable[[], None]
    stop: Callable[[], None]


@pytest.fixture
def post(empty: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    mails: list[Any] = []

    class Inbox(Message):
        def handle_message(self, message: Any) -> None:
            mails.append(message)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running: list[Controller] = []

    def start() -> None:
        running.append(Controller(Inbox(), hostname="127.0.0.1", port=port))
        running[-1].start()

    connection = {
        "conn_type": "smtp", "host": "127.0.0.1", "port": port,
        "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("BERT_ALERT_EMAILS", "ada@example.com,bob@example.com")
    settings.cache_clear()
    start()
    yield Post(mails, start, lambda: running.pop().stop())
    if running:
        running.pop().stop()
    monkeypatch.undo()
    settings.cache_clear()


def raised(key: str = "a", **values: Any) -> None:
    assert alerts.raise_alert(Alert(**({"kind": "drift", "key": key, "title": f"title {key}", "text": "t"} | values)))


def flush(now: datetime = NOW) -> Outlook:
    return sending.flush(MODEL, now)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("hang", "does not answer: .*timed out"),
        ("drip", "it had not taken the message after 0.5 seconds"),
        ((404, {}), "answered 404: no_service"),
        ((429, {}), "answered 429"),
        ((500, {}), "answered 500"),
    ],
    ids=["hangs", "drips", "404", "429", "500"],
)
def test_a_webhook_that_behaves_badly_gets_the_alert_later_and_once(slack: Slack, answer: Any, said: str) -> None:
    slack.answers = [answer]
    raised()
    with pytest.MonkeyPatch.context() as patch:
        if answer == "drip":
            patch.setattr(delivery, "LONGEST_SECONDS", 0.5)
        outlook = flush()
    assert [one.alert.key for one in outlook.unsent] == ["a"]
    assert re.search(said, outlook.failing[sending.SLACK].error)
    assert flush(NOW + MINUTE / 2).unsent, "its pause is not over"
    assert slack.messages == []
    assert flush(NOW + MINUTE).unsent == []
    assert flush(NOW + 2 * MINUTE).unsent == []
    assert slack.titles() == ["title a"]


def test_a_webhook_that_is_not_there_is_noted(slack: Slack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_SLACK_DEFAULT", json.dumps({"conn_type": "slackwebhook", "password": "http://127.0.0.1:9/x"})
    )
    raised()
    assert "refused" in flush().failing[sending.SLACK].error


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_the_pause_that_slack_asks_for_is_kept(slack: Slack, as_date: bool) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    asked = format_datetime(now + timedelta(seconds=1800), usegmt=True) if as_date else "1800"
    slack.answers = [(429, {"Retry-After": asked})]
    raised()
    until = flush(now).failing[sending.SLACK].not_before
    assert until
    assert abs(until - now - timedelta(seconds=1800)) <= timedelta(seconds=20)


def test_a_pause_that_is_no_number_is_the_usual_one(slack: Slack) -> None:
    slack.answers = [(429, {"Retry-After": "nan"})]
    raised()
    assert flush().failing[sending.SLACK].not_before == NOW + MINUTE


def test_mail_goes_to_all_whom_the_setting_names(post: Post) -> None:
    raised(title="drift <b>", text="<script>", links={"report": "https://a.example/r", "files": "s3://bert/x"})
    assert flush().unsent == []
    (mail,) = post.mails
    assert mail["To"] == "ada@example.com, bob@example.com"
    assert mail["From"] == "airflow@example.com"
    assert mail["Subject"] == f"[{MODEL}] drift <b>"
    html = mail.get_payload(decode=False)[0].get_payload(decode=True).decode()
    assert '<a href="https://a.example/r">' in html
    assert "<code>s3://bert/x</code>" in html
    assert "<script>" not in html


def test_a_mail_server_that_is_down_gets_it_later_and_slack_at_once(post: Post, slack: Slack) -> None:
    post.stop()
    raised()
    outlook = flush()
    assert slack.titles() == ["title a"]
    assert list(outlook.failing) == [sending.MAIL]
    assert "refused" in sending.note(outlook)
    post.start()
    assert flush(NOW + MINUTE).unsent == []
    assert len(post.mails) == 1
    assert slack.titles() == ["title a"]


def test_a_mail_server_that_says_nothing_holds_up_nothing(
    post: Post, slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": silent.getsockname()[1]}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection | {"extra": {"disable_ssl": True}}))
        raised()
        outlook = flush()
    assert list(outlook.failing) == [sending.MAIL]
    assert slack.titles() == ["title a"]


def test_each_channel_is_off_unless_its_connection_exists_and_says_how_to_switch_it_on(
    empty: None, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    raised()
    found, off = sending.channels(MODEL)
    assert found == {}
    assert "there is no connection slack_default (Slack Incoming Webhook)" in " ".join(off)
    assert "BERT_ALERT_EMAILS names nobody" in " ".join(off)
    assert flush().unsent == []
    assert sending.main([]) == 0
    assert "no connection slack_default" in capsys.readouterr().out


def test_airflows_own_settings_for_mail_are_good_for_alerts_too(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    port = json.loads(os.environ["AIRFLOW_CONN_SMTP_DEFAULT"])["port"]
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT")
    smtp = {"HOST": "127.0.0.1", "PORT": str(port), "STARTTLS": "False", "MAIL_FROM": "airflow@example.com"}
    for name, value in smtp.items():
        monkeypatch.setenv(f"AIRFLOW__SMTP__SMTP_{name}", value)
    raised()
    assert flush().unsent == []
    assert [mail["Subject"] for mail in post.mails] == [f"[{MODEL}] title a"]


def test_the_command_shows_what_is_unsent_and_why(slack: Slack, capsys: pytest.CaptureFixture[str]) -> None:
    slack.answers = [(404, {})]
    raised()
    assert sending.main(["--now"]) == 1
    told = capsys.readouterr().out
    assert "1 alert(s) unsent" in told
    assert "title a" in told
    assert "answered 404: no_service. Tried 1 time(s)" in told
    assert sending.main([]) == 1, "a look alone sends nothing"
    assert slack.messages == []


def test_a_task_that_fails_while_slack_hangs_fails_as_it_is_and_is_told_of_once_with_its_log(slack: Slack) -> None:
    with DAG("always_fails", start_date=START, schedule=None, default_args=TASK_DEFAULTS) as dag:

        @task(retries=2, retry_delay=timedelta(0), retry_exponential_backoff=False)
        def fail() -> None:
            raise ValueError("<!channel> " + "x" * 10_000)

        fail()
    run = dag.test(datetime(2026, 1, 1, tzinfo=UTC))
    (ti,) = run.get_task_instances()
    assert (ti.state, ti.try_number, run.state) == ("failed", 3, "failed")
    (pending,) = outbox.unsent(MODEL)
    assert pending.alert.title == "always_fails.fail failed"
    assert len(pending.alert.text) <= outbox.LONGEST_TEXT
    assert not pending.alert.is_urgent
    slack.answers = ["hang"]
    assert flush().unsent
    assert run.state == "failed"
    flush(NOW + MINUTE)
    (message,) = slack.messages
    assert "ValueError: &lt;!channel&gt; xxx" in message["blocks"][1]["text"]["text"]
    assert "/dags/always_fails/grid?" in message["blocks"][2]["elements"][0]["text"]


def test_a_run_that_was_ended_by_its_time_out_is_told_of_as_late(slack: Slack) -> None:
    run = DagRun("lake_cleanup", "scheduled__1", run_type=DagRunType.SCHEDULED, start_date=NOW)
    tell_if_timed_out({"dag_run": run, "reason": "task_failure"})
    assert outbox.names(MODEL) == []
    for _ in range(2):
        tell_if_timed_out({"dag_run": run, "reason": "timed_out"})
    flush()
    assert slack.titles() == ["lake_cleanup was ended: it took longer than its time-out"]


def test_a_run_that_should_have_ended_is_told_of_once(empty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = DagBag(DAGS, include_examples=False)
    bag.sync_to_db()
    now = datetime.now(UTC)
    ages = {"lake_cleanup": 7, "weekly_etl": 5, "s3_upload_listener": 30, "watch_champion": 6.5}
    for dag_id, hours in ages.items():
        begun = now - timedelta(hours=hours)
        bag.dags[dag_id].create_dagrun(
            state=DagRunState.RUNNING, run_id=f"manual__{hours}", execution_date=begun, start_date=begun,
            run_type=DagRunType.MANUAL, data_interval=(begun, begun),
        )  # fmt: skip
    for _ in range(2):
        looking.tell_of_late_runs(MODEL)
    (pending,) = outbox.unsent(MODEL)
    assert pending.alert.kind == "late"
    assert pending.alert.title.startswith("lake_cleanup runs since ")
    assert sending.address(pending.alert.links["run"]).endswith("/dags/lake_cleanup/grid?dag_run_id=manual__7")
    outbox.close(MODEL, pending)
    monkeypatch.setenv("BERT_LATE_MINUTES", "240")
    monkeypatch.setenv("BERT_WATCH_MINUTES", "700")
    settings.cache_clear()
    assert fires(AlertTrigger(MODEL, digest([]), (now + MINUTE).isoformat(), poll_seconds=0.01)), "it looks itself"
    assert outbox.unsent(MODEL)[0].alert.title.startswith("weekly_etl runs since "), "and a watch takes its time"
    monkeypatch.undo()
    settings.cache_clear()


def test_an_upload_that_no_run_uses_is_told_of_once(empty: None) -> None:
    uri = objects.write_bytes(f"{lake.root()}/staging/a.csv", b"text,label\na,x\n")
    sealing.seal("20260302T1200-a", "incoming/a.csv", uri, origin="test")
    now = datetime.now(UTC)
    looking.tell_of_stuck_uploads(MODEL, now + timedelta(hours=23))
    assert outbox.names(MODEL) == []
    for hours in (25, 26):
        looking.tell_of_stuck_uploads(MODEL, now + timedelta(hours=hours))
    (pending,) = outbox.unsent(MODEL)
    assert pending.alert.kind == "stuck_upload"
    assert pending.alert.links["files"] == lake.claims("20260302T1200-a")


def test_an_upload_that_cannot_move_is_told_of_once(empty: None) -> None:
    refusal = Refusal(key="incoming/a.csv", etag="1", reason="in an archive", since=NOW, tried=NOW, tries=2)
    listening._tell_of_what_cannot_move([refusal], [])
    assert outbox.names(MODEL) == [], "it may have been a moment's fault"
    for tries in (3, 4):
        listening._tell_of_what_cannot_move([refusal.model_copy(update={"tries": tries})], ["b1"])
    entry = Entry(
        batch_id="b2",
        number=9,
        state=State.RELEASED,
        who=Who.LISTENER,
        at=NOW,
        because=Because.GAVE_UP,
        reason="4 runs",
    )
    for _ in range(2):
        listening._alert(entry)
    assert sorted(one.alert.title for one in outbox.unsent(MODEL)) == [
        "An upload cannot be copied: incoming/a.csv",
        "An upload waits for a person: batch b2",
        "An upload's manifest is damaged: batch b1",
    ]


class Instance:
    start_date = NOW


def deferral(operator: SendAlerts, monkeypatch: pytest.MonkeyPatch) -> tuple[AlertTrigger, str]:
    """What the task waits for after it has sent what was due, and its run's note."""
    noted: list[str] = []
    monkeypatch.setattr("include.orchestration.notes.set_note", lambda dag_id, run_id, text: noted.append(text))
    Instance.start_date = datetime.now(UTC)
    run = DagRun("send_alerts", "scheduled__1", run_type=DagRunType.SCHEDULED)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({"dag_run": run, "ti": Instance})
    trigger = deferred.value.trigger
    assert isinstance(trigger, AlertTrigger)
    return AlertTrigger(**trigger.serialize()[1] | {"poll_seconds": 0.01}), noted[-1]


def fires(trigger: AlertTrigger, while_waiting: Callable[[], None] = lambda: None, seconds: float = 5) -> bool:
    """Whether the trigger fires within some time."""

    async def wait() -> bool:
        events = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(while_waiting)
        done, _ = await asyncio.wait([events], timeout=seconds)
        events.cancel()
        return bool(done)

    return asyncio.run(wait())


def test_the_sender_shows_what_is_unsent_and_wakes_when_an_alert_is_raised(
    slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack.answers = [(404, {})]
    raised("a")
    operator = SendAlerts(task_id="send", model_name=MODEL)
    trigger, note = deferral(operator, monkeypatch)
    assert "**1 alert(s) unsent**: slack_default: Slack's webhook answered 404" in note
    assert 50 < (datetime.fromisoformat(trigger.until) - datetime.now(UTC)).total_seconds() <= 60
    assert not fires(trigger, seconds=0.3), "nothing is new, and the pause is not over"
    assert fires(trigger, lambda: raised("b"))
    trigger.until = datetime.now(UTC).isoformat()
    assert fires(trigger), "the pause is over"


def test_a_sender_without_a_channel_looks_for_one_a_quarter_of_an_hour_later(
    empty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger, note = deferral(SendAlerts(task_id="send", model_name=MODEL), monkeypatch)
    assert (trigger.known, note) == (None, "")
    assert 890 < (datetime.fromisoformat(trigger.until) - datetime.now(UTC)).total_seconds() <= 900
    assert not fires(trigger, lambda: raised("a"), seconds=0.2)


def test_a_bucket_that_is_away_ends_no_trigger(empty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = AlertTrigger(MODEL, digest([]), (datetime.now(UTC) + MINUTE).isoformat(), poll_seconds=0.01)
    monkeypatch.setattr(outbox, "names", lambda model_name: (_ for _ in ()).throw(OSError("away")))
    assert not fires(trigger, seconds=0.2)
    monkeypatch.undo()
    assert fires(AlertTrigger(MODEL, "another", trigger.until, poll_seconds=0.01))
