"""The outbox: ``alerts/<model>/outbox/`` holds what is to be sent, ``alerts/<model>/sent/`` what was.

An alert is created once under a name made of its kind and key. It moves to ``sent/`` when all channels have it; as long
as it lies in one of the two, raising it again does nothing. A sender that is cut off between sending and noting that
sends it twice: nothing here is lost for that.
"""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from pydantic import TypeAdapter

from include import lake, objects
from include.settings import settings

logger = logging.getLogger(__name__)

KINDS = {
    "failure": "a task has failed after its last try",
    "late": "a run takes longer than it should, or was ended for that",
    "drift": "what the model is asked, or how it answers, has changed",
    "approval": "something waits for a person's word",
    "promotion": "a version became the champion",
    "rejection": "a challenger was rejected",
    "rollback": "an earlier version is the champion again",
    "stuck_upload": "an upload is not used, and nothing will change that by itself",
    "budget": "a retraining was due, and the month's budget of them is used up",
    "quality": "a daily check of the data has failed",
}
"""The kinds of alerts, and what each says."""

URGENT_KINDS = ("rollback",)
"""What is sent in quiet hours, too; other alerts say so of themselves."""

LONGEST_TITLE = 200  # characters
LONGEST_TEXT = 4000
AT_ONCE = 16  # requests to S3


@dataclass(frozen=True)
class Alert:
    """An event that people are to hear of.

    Attributes:
        kind: one of ``KINDS``.
        key: what tells the event from others of its kind: a second alert with it is the same event, and not sent.
        title: one line that says what happened.
        text: what else there is to know, and what to do; plain text, cut where it is very long.
        links: names and addresses (``https://…``, ``s3://…``) of where to look. ``airflow:<dag_id>/<run_id>``, with
            ``/<task_id>`` behind it for a task's log, is made an address of the webserver by the sender.
        urgent: whether it is sent in quiet hours, too; None: as its kind has it.
    """

    kind: str
    key: str
    title: str
    text: str
    links: dict[str, str] = field(default_factory=dict)
    urgent: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no kind of alert {self.kind!r}: there are {', '.join(KINDS)}")
        if not self.key:
            raise ValueError("an alert needs a key, by which its event is told from others of its kind")

    @property
    def is_urgent(self) -> bool:
        """Whether it is sent in quiet hours, too."""
        return self.kind in URGENT_KINDS if self.urgent is None else self.urgent

    @property
    def name(self) -> str:
        """The name of its object: the kind, and 16 hex digits of the key."""
        return f"{self.kind}-{hashlib.sha256(self.key.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Pending:
    """An alert in the outbox: when it was raised, and which channels have had it, with the time.

    A channel that gave up has said so in place of the time.
    """

    alert: Alert
    raised_at: datetime
    id: str
    delivered: dict[str, str] = field(default_factory=dict)


_PENDING = TypeAdapter(Pending)


def raise_alert(alert: Alert, model_name: str = "") -> bool:
    """Puts an alert into the outbox; False if it was raised before, or if that failed, which is logged.

    ``model_name`` is by default this deployment's. Nothing is raised as an exception: an alert never fails what it is
    about.
    """
    model_name = model_name or settings().model_name
    shortened = _writable(alert)
    try:
        if objects.exists(_sent(model_name, shortened.name)):
            return False
        pending = Pending(shortened, datetime.now(UTC), uuid4().hex)
        raised = objects.create_bytes(_outbox(model_name, shortened.name), _json(pending))
    except Exception:
        logger.exception("could not raise the alert %r (%s)", alert.title, alert.kind)
        return False
    if raised:
        logger.warning("alert (%s): %s", alert.kind, shortened.title)
    return raised


def names(model_name: str) -> list[str]:
    """The names of what lies in the outbox, sorted: one request."""
    return [uri.rsplit("/", 1)[-1] for uri in objects.find(_outbox(model_name, ""))]


def unsent(model_name: str) -> list[Pending]:
    """What lies in the outbox, oldest first."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(partial(_read, model_name), names(model_name)))
    return sorted((one for one in found if one is not None), key=lambda one: one.raised_at)


def note_delivery(model_name: str, pending: Pending, channel: str, said: str) -> Pending:
    """Notes that a channel has had an alert, and when, or why it never will; returns it with that."""
    noted = replace(pending, delivered=pending.delivered | {channel: said})
    objects.write_bytes(_outbox(model_name, pending.alert.name), _json(noted))
    return noted


def close(model_name: str, pending: Pending) -> None:
    """Moves an alert to what was sent."""
    name = pending.alert.name
    objects.write_bytes(_sent(model_name, name), _json(pending))  # first: until then it is still to be sent
    _take_away(model_name, name)


def _read(model_name: str, name: str) -> Pending | None:
    """An alert of the outbox. One that was sent, and raised again in that moment, is taken away."""
    if objects.exists(_sent(model_name, name)):
        _take_away(model_name, name)
        return None
    try:
        return _PENDING.validate_json(objects.read_bytes(_outbox(model_name, name)))
    except FileNotFoundError:
        return None
    except ValueError as error:  # a newer version's, or somebody's own file
        logger.warning("%s is no alert, and stays where it is: %s", _outbox(model_name, name), error)
        return None


def _take_away(model_name: str, name: str) -> None:
    try:
        objects.delete(_outbox(model_name, name))
    except PermissionError as error:  # it costs a request at each look, and is not sent again
        logger.warning("Airflow may not delete %s (s3:DeleteObject on alerts/): %s", _outbox(model_name, name), error)


def _writable(alert: Alert) -> Alert:
    """An alert as it is kept: shortened, and in UTF-8, which a file's name, and an error with it, need not be."""
    return replace(
        alert,
        key=_utf8(alert.key),
        title=cut(_utf8(alert.title), LONGEST_TITLE),
        text=cut(_utf8(alert.text), LONGEST_TEXT),
        links={_utf8(name): _utf8(target) for name, target in alert.links.items()},
    )


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _outbox(model_name: str, name: str) -> str:
    return lake.alerts(model_name, f"outbox/{name}")


def _sent(model_name: str, name: str) -> str:
    return lake.alerts(model_name, f"sent/{name}")


def _json(pending: Pending) -> bytes:
    return _PENDING.dump_json(pending, indent=2)


def cut(text: str, length: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
