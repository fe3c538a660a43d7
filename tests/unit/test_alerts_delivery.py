"""Delivery of alerts: once to each channel, grouped when many, later when it fails; and what a message looks like."""

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from include import alerts, lake, objects
from include.alerts import Alert, delivery, outbox, rendering
from include.alerts.delivery import NotDelivered, Outlook
from include.settings import quiet

MODEL = "bert-classifier"
NOW = datetime(2026, 3, 2, 23, tzinfo=UTC)
NIGHT = quiet.parse("22:00-07:00 Europe/Berlin")

pytestmark = pytest.mark.usefixtures("file_lake")


class Wall:
    """A channel that keeps what it is sent, or fails in the ways that it is told to, one by one."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.messages: list[list[str]] = []

    def __call__(self, sent: Sequence[Alert]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append([alert.key for alert in sent])


def raised(*keys: str, kind: str = "drift", **values: object) -> None:
    for key in keys:
        assert alerts.raise_alert(Alert(kind, key, f"title {key}", "text", **values))  # type: ignore[arg-type]


def deliver(now: datetime, **walls: Wall) -> Outlook:
    return delivery.deliver(MODEL, walls, now=now)


def test_each_channel_gets_each_alert_once() -> None:
    slack, mail = Wall(), Wall()
    raised("a")
    assert deliver(NOW, slack=slack, mail=mail).unsent == []
    raised("b")
    deliver(NOW, slack=slack, mail=mail)
    assert slack.messages == mail.messages == [["a"], ["b"]]


def test_many_go_as_one_message_and_urgent_ones_first_in_it() -> None:
    wall = Wall()
    raised(*"abcdef")
    raised("back", kind="rollback")
    deliver(NOW, slack=wall)
    ((first, *others),) = wall.messages
    assert (first, sorted(others)) == ("back", list("abcdef"))


def test_a_channel_that_fails_holds_up_no_other_and_gets_the_alert_later() -> None:
    slack, mail = Wall(NotDelivered("404 no_service")), Wall()
    raised("a")
    outlook = deliver(NOW, slack=slack, mail=mail)
    assert [one.alert.key for one in outlook.unsent] == ["a"]
    assert outlook.failing["slack"].error == "404 no_service"
    assert outlook.next_at == NOW + timedelta(minutes=1)
    deliver(NOW + timedelta(seconds=59), slack=slack, mail=mail)
    assert slack.messages == [], "not before its pause is over"
    assert deliver(NOW + timedelta(minutes=1), slack=slack, mail=mail).unsent == []
    assert (slack.messages, mail.messages) == ([["a"]], [["a"]])


def test_a_message_that_is_refused_holds_up_no_other_and_is_tried_again() -> None:
    wall = Wall(NotDelivered("400 invalid_payload", refused=True))
    raised("a")
    raised("b")
    outlook = deliver(NOW, slack=wall)
    assert (wall.messages, [one.alert.key for one in outlook.unsent]) == ([["b"]], ["a"])
    assert outlook.failing["slack"].error == "400 invalid_payload"
    assert outlook.next_at == NOW + timedelta(minutes=1)
    assert deliver(NOW + timedelta(minutes=1), slack=wall).unsent == []


def test_pauses_grow_to_an_hour_and_begin_anew_after_a_success() -> None:
    wall = Wall(*[NotDelivered("down")] * 8)
    raised("a")
    now, pauses = NOW, []
    for _ in range(8):
        outlook = deliver(now, slack=wall)
        assert outlook.next_at
        pauses.append((outlook.next_at - now) / timedelta(minutes=1))
        now = outlook.next_at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert deliver(now, slack=wall).failing == {}


@pytest.mark.parametrize(
    ("asked", "pause"), [(30, 30), (900.5, 900.5), (1e9, 6 * 3600), (1e20, 6 * 3600), (float("inf"), 6 * 3600), (-5, 0)]
)
def test_the_pause_that_a_server_asks_for_is_kept_within_reason(asked: float, pause: float) -> None:
    raised("a")
    outlook = deliver(NOW, slack=Wall(NotDelivered("429", asked)))
    assert outlook.failing["slack"].not_before == NOW + timedelta(seconds=pause)


def test_a_clock_that_was_set_back_silences_no_channel() -> None:
    before, failing, busy = NOW - timedelta(days=1), Wall(NotDelivered("down")), Wall()
    for at in range(delivery.MOST_MESSAGES):
        raised(f"{at}")
        deliver(NOW, busy=busy)
    raised("a")
    deliver(NOW, failing=failing)
    assert deliver(before, failing=failing, busy=busy).unsent == []
    assert (failing.messages, busy.messages[-1]) == ([["a"]], ["a"])


def test_a_message_has_an_end_however_often_its_server_says_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LONGEST_SECONDS", 0.05)
    over = threading.Event()
    raised("a")
    outlook = delivery.deliver(MODEL, {"slow": lambda sent: [over.wait(10), None][1]}, now=NOW)
    over.set()
    assert outlook.failing["slow"].error == "it had not taken the message after 0.05 seconds"


def test_whatever_a_channel_raises_is_noted_and_nothing_else() -> None:
    raised("a")
    outlook = deliver(NOW, slack=Wall(RuntimeError("a fault of its own")))
    assert outlook.failing["slack"].error == "RuntimeError: a fault of its own"


def test_while_a_server_is_down_nothing_else_is_sent_to_it() -> None:
    wall = Wall(NotDelivered("down"))
    raised("a")
    deliver(NOW, slack=wall)
    raised("b")
    deliver(NOW + timedelta(seconds=10), slack=wall)
    deliver(NOW + timedelta(minutes=1), slack=wall)
    assert sorted(key for message in wall.messages for key in message) == ["a", "b"]


def test_a_storm_is_a_few_messages() -> None:
    wall = Wall()
    for at in range(30):
        raised(f"{at}")
        deliver(NOW + timedelta(seconds=10 * at), slack=wall)
    assert len(wall.messages) == delivery.MOST_MESSAGES
    deliver(NOW + timedelta(minutes=20), slack=wall)
    assert len(wall.messages) == delivery.MOST_MESSAGES + 1
    assert sum(map(len, wall.messages)) == 30


def test_in_quiet_hours_only_what_is_urgent_is_sent_and_the_rest_in_the_morning() -> None:
    wall = Wall()
    raised("a")
    raised("back", kind="rollback")
    raised("production", kind="failure", urgent=True)
    outlook = delivery.deliver(MODEL, {"slack": wall}, now=NOW, quiet=NIGHT)
    assert wall.messages == [["back"], ["production"]]
    assert outlook.next_at == datetime(2026, 3, 3, 6, tzinfo=UTC), "seven o'clock in Berlin, in winter"
    delivery.deliver(MODEL, {"slack": wall}, now=outlook.next_at, quiet=NIGHT)
    assert wall.messages[-1] == ["a"]


def test_what_a_channel_would_not_take_for_a_week_is_given_up_and_kept() -> None:
    slack, mail = Wall(NotDelivered("gone"), NotDelivered("gone")), Wall()
    now = datetime.now(UTC)
    raised("a")
    deliver(now, slack=slack, mail=mail)
    assert deliver(now + timedelta(days=8), slack=slack, mail=mail).unsent == []
    (kept,) = objects.find(lake.alerts(MODEL, "sent/"))
    assert objects.read_json(kept)["delivered"]["slack"] == "given up: gone"


def test_without_a_channel_nothing_is_kept_for_later() -> None:
    raised("a")
    assert deliver(NOW) == Outlook()
    wall = Wall()
    deliver(NOW, slack=wall)
    assert wall.messages == []
    assert not alerts.raise_alert(Alert("drift", "a", "again", ""))


def test_what_somebody_has_damaged_begins_anew() -> None:
    raised("a")
    deliver(NOW, slack=Wall(NotDelivered("down")))
    objects.write_bytes(lake.alerts(MODEL, "channels.json"), b'{"slack": []}')
    wall = Wall()
    assert deliver(NOW, slack=wall).unsent == []


def test_a_sender_that_was_cut_off_sends_again_and_loses_nothing() -> None:
    wall = Wall()
    raised("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "note_delivery", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            deliver(NOW, slack=wall)
    deliver(NOW, slack=wall)
    assert wall.messages == [["a"], ["a"]]


HOSTILE = "<!channel> <@U1> *b* `c` <https://evil.example|x> &amp; <script>alert(1)</script>"


@pytest.mark.parametrize("count", [1, 2, 40])
def test_nothing_in_an_alert_is_taken_for_markup(count: int) -> None:
    hostile = Alert("failure", "k", HOSTILE, f"```{HOSTILE}```", {"<!here>": "https://a.example/?q=<!channel>|x&b=1"})
    body = json.dumps(rendering.slack(MODEL, [hostile] * count, str))
    assert "<!" not in body
    assert "<@" not in body
    assert "<https://evil" not in body
    assert "<https://a.example/?q=%3C!channel%3E%7Cx&amp;b=1|&lt;!here&gt;>" in body
    _, html = rendering.mail(MODEL, [hostile] * count, str)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_message_keeps_slacks_bounds_whatever_is_told() -> None:
    many = [Alert("failure", f"{at}", "&" * 200, "<" * 4000, {"log": "https://a.example"}) for at in range(60)]
    for some in (many[:1], many):
        blocks = rendering.slack(MODEL, some, str)["blocks"]
        assert len(blocks) <= 50
        for block in blocks:
            if "text" in block:
                assert 0 < len(block["text"]["text"]) <= (150 if block["type"] == "header" else 3000)
    assert "and 45 more" in json.dumps(blocks)
    assert "60 alerts: 60 failure" in json.dumps(blocks)


def test_a_subject_is_one_line() -> None:
    subject, _ = rendering.mail(MODEL, [Alert("failure", "k", "line one\r\nBcc: x@y.example", "")], str)
    assert subject == "[bert-classifier] line one Bcc: x@y.example"


@pytest.mark.parametrize(
    ("words", "at", "until"),
    [
        ("22:00-07:00", "2026-03-02T21:59", None),
        ("22:00-07:00", "2026-03-02T22:00", "2026-03-03T07:00"),
        ("22:00-07:00", "2026-03-03T06:59", "2026-03-03T07:00"),
        ("22:00-07:00", "2026-03-03T07:00", None),
        ("12:00-13:30", "2026-03-02T13:00", "2026-03-02T13:30"),
        ("22:00-07:00 Europe/Berlin", "2026-03-28T21:00", "2026-03-29T05:00"),  # that night summer time began
        ("22:00-07:00 America/New_York", "2026-07-02T02:00", "2026-07-02T11:00"),
        # In that night summer time ended: from 01:00 UTC on the clock went from 02:00 to 03:00 a second time.
        ("22:00-02:30 Europe/Berlin", "2026-10-25T00:29", "2026-10-25T00:30"),
        ("22:00-02:30 Europe/Berlin", "2026-10-25T01:15", None),
        ("02:30-07:00 Europe/Berlin", "2026-10-25T01:15", "2026-10-25T06:00"),
    ],
)
def test_quiet_hours(words: str, at: str, until: str | None) -> None:
    hours = quiet.parse(words)
    assert hours
    found = hours.until(datetime.fromisoformat(f"{at}+00:00"))
    assert found == (datetime.fromisoformat(f"{until}+00:00") if until else None)


@pytest.mark.parametrize("words", ["22-07", "25:00-07:00", "22:00-22:00", "22:00-07:00 Mars/Base", "night"])
def test_quiet_hours_that_cannot_be_read_say_what_is_wrong(words: str) -> None:
    with pytest.raises(ValueError, match=words.split()[-1].split("-")[0]):
        quiet.parse(words)
