"""The outbox of alerts: each event once, whoever sees it, and nothing fails by it."""

from datetime import UTC, datetime

import pytest

from include import alerts, lake, objects
from include.alerts import Alert, outbox

MODEL = "bert-classifier"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DRIFT = Alert("drift", "2026-03-02", "Other texts than before", "42 % are of a label that was 10 %")

pytestmark = pytest.mark.usefixtures("file_lake")


def test_an_event_is_raised_once() -> None:
    assert alerts.raise_alert(DRIFT) is True
    assert alerts.raise_alert(DRIFT) is False
    assert alerts.raise_alert(Alert("drift", "2026-03-02", "The same event in other words", "")) is False
    assert alerts.raise_alert(Alert("budget", "2026-03-02", "Another kind", "")) is True
    assert [one.alert.title for one in outbox.unsent(MODEL)] == [DRIFT.title, "Another kind"]


def test_an_event_that_was_sent_is_not_raised_again() -> None:
    alerts.raise_alert(DRIFT)
    (pending,) = outbox.unsent(MODEL)
    outbox.close(MODEL, outbox.note_delivery(MODEL, pending, "slack", NOW.isoformat()))
    assert outbox.names(MODEL) == []
    assert alerts.raise_alert(DRIFT) is False
    assert outbox.names(MODEL) == []


def test_what_was_raised_while_it_was_being_sent_is_not_sent_again() -> None:
    alerts.raise_alert(DRIFT)
    (pending,) = outbox.unsent(MODEL)
    content = objects.read_bytes(lake.alerts(MODEL, f"outbox/{DRIFT.name}"))
    outbox.close(MODEL, pending)
    objects.write_bytes(lake.alerts(MODEL, f"outbox/{DRIFT.name}"), content)  # whoever had looked a moment before
    assert outbox.unsent(MODEL) == []
    assert outbox.names(MODEL) == []


def test_a_delivery_is_kept_while_another_channel_has_not_had_it() -> None:
    alerts.raise_alert(DRIFT)
    outbox.note_delivery(MODEL, *outbox.unsent(MODEL), "mail", NOW.isoformat())
    (pending,) = outbox.unsent(MODEL)
    assert pending.delivered == {"mail": NOW.isoformat()}
    assert pending.alert == DRIFT


def test_long_errors_are_cut() -> None:
    alerts.raise_alert(Alert("failure", "x", "t" * 1000, "e" * 1_000_000))
    (pending,) = outbox.unsent(MODEL)
    assert (len(pending.alert.title), len(pending.alert.text)) == (200, 4000)
    assert pending.alert.text.endswith("…")


def test_words_that_are_not_utf_8_are_told_all_the_same() -> None:
    odd = "incoming/caf\udce9.csv"
    assert alerts.raise_alert(Alert("failure", odd, odd, odd, {"files": odd}))
    assert not alerts.raise_alert(Alert("failure", odd, odd, odd))
    (pending,) = outbox.unsent(MODEL)
    assert pending.alert.title == pending.alert.links["files"] == r"incoming/caf\udce9.csv"


def test_another_models_alerts_lie_apart() -> None:
    assert alerts.raise_alert(DRIFT, "other") is True
    assert alerts.raise_alert(DRIFT) is True
    assert len(outbox.unsent("other")) == 1


@pytest.mark.parametrize("kind", ["Drift", "", "alarm"])
def test_a_kind_that_nobody_knows_is_refused_with_those_there_are(kind: str) -> None:
    with pytest.raises(ValueError, match="stuck_upload"):
        Alert(kind, "key", "title", "text")


def test_a_bucket_that_cannot_be_written_to_fails_nobody(
    set_env: object, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    set_env(BERT_BUCKET="file:///proc/nowhere")  # type: ignore[operator]
    assert alerts.raise_alert(DRIFT) is False
    assert "Other texts than before" in caplog.text


def test_what_is_no_alert_stays_and_stops_nothing() -> None:
    alerts.raise_alert(DRIFT)
    objects.write_bytes(lake.alerts(MODEL, "outbox/readme.txt"), b"hello")
    assert [one.alert for one in outbox.unsent(MODEL)] == [DRIFT]
