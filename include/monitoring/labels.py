"""What people say of a version's answers: accuracy by labels asked for at random, and how many were corrected."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow.compute as pc

from include import lake, objects
from include.monitoring import accuracy
from include.monitoring.accuracy import Accuracy
from include.serving import feedback, prediction_log


@dataclass(frozen=True)
class ErrorRate:
    """How many of a version's answers somebody has corrected."""

    answers: int
    corrected: int

    @property
    def value(self) -> float | None:
        """The share; None if nothing was answered."""
        return self.corrected / self.answers if self.answers else None


def live_accuracy(model_name: str, version: str, since: datetime, until: datetime) -> Accuracy:
    """A version's accuracy by the labels of texts chosen at random (``/sample``, ``/feedback``).

    Args:
        model_name: the registered model.
        version: whose answers.
        since: of answers from this moment on,
        until: and before this one. Labels count whenever they came.

    Returns:
        The share that was right, with an interval that holds whenever one looks. Without labels it is 0 to 1.
    """
    newest: dict[str, dict[str, Any]] = {}
    for one in _said(lake.feedback(model_name, "labelled/"), since.astimezone(UTC).date()):
        answered = _moment(one.get("answered_at") or one.get("at"))
        if answered and str(one.get("version")) == version and since <= answered < until:
            before = newest.get(one["prediction_id"])
            if before is None or str(before.get("at")) <= str(one.get("at")):
                newest[one["prediction_id"]] = one
    in_order = sorted(newest.values(), key=lambda one: (str(one.get("at")), one["prediction_id"]))
    return accuracy.live([one["label"] == one.get("predicted") for one in in_order])


def error_rate(model_name: str, version: str, since: datetime, until: datetime) -> ErrorRate:
    """How many of a version's answers between two moments were corrected (``/feedback`` with another label).

    People correct what annoys them, so this is no accuracy; beside the version before, it is a sign.
    """
    given = {
        one["prediction_id"]: str(one["label"])
        for one in sorted(
            _said(lake.feedback(model_name), since.astimezone(UTC).date()), key=lambda one: str(one.get("at", ""))
        )
    }
    days = _days(since, until)
    mine = (pc.field("version") == version) & (pc.field("role") != "shadow")
    answers = corrected = 0
    for rows in prediction_log.read(model_name, days):
        some = rows.filter(mine & (pc.field("at") >= since) & (pc.field("at") < until))
        answers += len(some)
        if given and len(some):
            said = some.filter(pc.field("id").isin(list(given))).select(["id", "label"]).to_pylist()
            corrected += sum(given[row["id"]] != row["label"] for row in said)
    return ErrorRate(answers, corrected)


def _said(place: str, first: date) -> Iterator[dict[str, Any]]:
    """What came since a day, below ``date=YYYY-MM-DD/``."""
    folders = {uri: uri.removeprefix(place).split("/", 1)[0] for uri in objects.find(place)}
    return feedback.records(
        uri for uri, name in folders.items() if name.startswith("date=") and name >= f"date={first.isoformat()}"
    )


def _moment(said: Any) -> datetime | None:
    """What is said of a moment, in UTC unless it names a zone; None if it is none."""
    try:
        found = datetime.fromisoformat(str(said))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _days(since: datetime, until: datetime) -> list[str]:
    first, last = since.astimezone(UTC).date(), until.astimezone(UTC).date()
    return [f"{first + timedelta(days=number):%Y-%m-%d}" for number in range((last - first).days + 1)]
