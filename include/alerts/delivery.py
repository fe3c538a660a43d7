"""Delivery: each channel gets each alert of the outbox once, grouped when they are many, later when it fails.

What a channel has refused or could not take is tried again with growing pauses, or after the pause that its server asks
for. The pauses are a channel's, not an alert's: while a server is down, nothing else is sent to it. They and the times
of the last messages lie beside the outbox (``channels.json``), which one sender at a time works on.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from include import lake, objects
from include.alerts import outbox
from include.alerts.outbox import Alert, Pending
from include.settings.quiet import QuietHours

logger = logging.getLogger(__name__)

SINGLY = 3
"""So many alerts are sent as messages of their own; more become one message."""

MOST_MESSAGES, WITHIN = 6, timedelta(minutes=10)
"""So many messages go to a channel within that time; what is raised meanwhile waits, and goes as one message."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
LONGEST_ASKED_PAUSE = timedelta(hours=6)  # by a server, in Retry-After
GIVE_UP_AFTER = timedelta(days=7)
LONGEST_SECONDS = 60.0
"""For one message, however often its server says a little: a channel's own limit may be for each step."""

Channel = Callable[[Sequence[Alert]], None]
"""Sends alerts as one message. Raises NotDelivered."""


class NotDelivered(Exception):
    """A channel has not taken a message.

    ``retry_after`` is the pause in seconds that its server asked for, ``refused`` whether it may take another message.
    """

    def __init__(self, reason: str, retry_after: float | None = None, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.refused = retry_after, refused


@dataclass(frozen=True)
class Standing:
    """How a channel stands: failures in a row, when and why it failed last, and when it is tried again.

    Times that have not come yet are of a clock that was set back since: they count for nothing.
    """

    failures: int = 0
    not_before: datetime | None = None
    error: str = ""
    messages: tuple[datetime, ...] = ()
    failed_at: datetime | None = None

    def failed(self, error: NotDelivered, now: datetime) -> "Standing":
        """After a message that was not delivered."""
        pause = min(FIRST_PAUSE * 2 ** min(self.failures, 10), LONGEST_PAUSE)
        if error.retry_after is not None:
            pause = timedelta(seconds=min(max(error.retry_after, 0), LONGEST_ASKED_PAUSE.total_seconds()))
        told = str(error)[:300]
        return replace(self, failures=self.failures + 1, not_before=now + pause, error=told, failed_at=now)

    def sent(self, now: datetime) -> "Standing":
        """After one that was."""
        return Standing(messages=(*self._recent(now), now)[-MOST_MESSAGES:])

    def ready_at(self, now: datetime) -> datetime:
        """When the next message may be sent."""
        recent = self._recent(now)
        paced = recent[-MOST_MESSAGES] + WITHIN if len(recent) >= MOST_MESSAGES else now
        set_back = self.failed_at is not None and self.failed_at > now
        return max(now, paced, now if set_back else self.not_before or now)

    def _recent(self, now: datetime) -> list[datetime]:
        return [at for at in self.messages if now - WITHIN < at <= now]


_STANDINGS = TypeAdapter(dict[str, Standing])


@dataclass(frozen=True)
class Outlook:
    """What is left in the outbox.

    Attributes:
        unsent: alerts that a channel has not had.
        standings: by channel.
        next_at: when there is something to do if nothing new is raised; None: nothing.
    """

    unsent: list[Pending] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    next_at: datetime | None = None

    @property
    def failing(self) -> dict[str, Standing]:
        """The channels whose last message was not delivered."""
        return {name: one for name, one in self.standings.items() if one.failures}


def deliver(
    model_name: str, channels: Mapping[str, Channel], *, now: datetime, quiet: QuietHours | None = None
) -> Outlook:
    """Sends what is due; returns what is left. Without channels there is nobody to tell, and nothing is kept for later.

    Raises what S3 raises; a channel's failure is only noted.
    """
    pending = outbox.unsent(model_name)
    before = standings(model_name)
    after = {}
    for name, channel in channels.items():
        standing, pending = _serve(model_name, name, channel, before.get(name, Standing()), pending, now, quiet)
        after[name] = standing
    if after != {name: before.get(name, Standing()) for name in channels}:
        objects.write_bytes(_uri(model_name), _STANDINGS.dump_json(before | after, indent=2))
    left = []
    for one in pending:
        if all(name in one.delivered for name in channels):
            outbox.close(model_name, one)
        else:
            left.append(one)
    return outlook(left, after, now=now, quiet=quiet)


def outlook(
    pending: Sequence[Pending], standings: Mapping[str, Standing], *, now: datetime, quiet: QuietHours | None
) -> Outlook:
    """When what is left is due."""
    times = [
        _ready_at(one, standing, now, quiet)
        for one in pending
        for name, standing in standings.items()
        if name not in one.delivered
    ]
    return Outlook(list(pending), dict(standings), min(times, default=None))


def standings(model_name: str) -> dict[str, Standing]:
    """How each channel stands."""
    try:
        return _STANDINGS.validate_json(objects.read_bytes(_uri(model_name)))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # nothing of it is worth a failure
        logger.warning("%s cannot be read, and begins anew: %s", _uri(model_name), error)
        return {}


def _serve(
    model_name: str,
    name: str,
    channel: Channel,
    standing: Standing,
    pending: list[Pending],
    now: datetime,
    quiet: QuietHours | None,
) -> tuple[Standing, list[Pending]]:
    """Sends to one channel what is due there, and gives up what it would not take for days."""
    noted = {one.alert.name: one for one in pending}
    due = [one for one in pending if name not in one.delivered and _ready_at(one, standing, now, quiet) <= now]
    refusal: NotDelivered | None = None
    for group in _grouped(due):
        try:
            _send(channel, [one.alert for one in group])
        except NotDelivered as error:
            if error.refused:  # the others are not held up by it
                refusal = error
                logger.warning("%s: %s is refused: %s", name, group[0].alert.title, error)
                continue
            standing = standing.failed(error, now)
            logger.warning("%s: %d alerts are unsent: %s; next try at %s", name, len(due), error, standing.not_before)
            break
        except Exception as error:  # whatever a provider raises
            logger.exception("%s: alerts are unsent", name)
            standing = standing.failed(NotDelivered(f"{type(error).__name__}: {error}"), now)
            break
        standing = standing.sent(now)
        for one in group:
            noted[one.alert.name] = outbox.note_delivery(model_name, one, name, now.isoformat())
    if refusal:
        standing = standing.failed(refusal, now)
    return standing, [_given_up(model_name, name, one, standing.error, now) for one in noted.values()]


def _given_up(model_name: str, name: str, one: Pending, error: str, now: datetime) -> Pending:
    """An alert as it is noted, if a channel has not taken it for so long; else as it was."""
    if name in one.delivered or one.raised_at >= now - GIVE_UP_AFTER:
        return one
    logger.error("%s: given up after %s: %s", name, GIVE_UP_AFTER, one.alert.title)
    return outbox.note_delivery(model_name, one, name, f"given up: {error}")


def _send(channel: Channel, alerts: Sequence[Alert]) -> None:
    """Sends a message, in a thread that is left to itself if it takes too long: no library ends all that may hang."""
    sent: Future[None] = Future()

    def send() -> None:
        try:
            channel(alerts)
        except BaseException as error:
            sent.set_exception(error)
        else:
            sent.set_result(None)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(LONGEST_SECONDS)
    if not sent.done():
        raise NotDelivered(f"it had not taken the message after {LONGEST_SECONDS:g} seconds")
    sent.result()


def _ready_at(one: Pending, standing: Standing, now: datetime, quiet: QuietHours | None) -> datetime:
    ready = standing.ready_at(now)
    if quiet is None or one.alert.is_urgent:
        return ready
    return quiet.until(ready) or ready


def _grouped(due: Sequence[Pending]) -> Iterator[Sequence[Pending]]:
    """The messages: urgent alerts first, each alone; if there are many, all together."""
    ordered = sorted(due, key=lambda one: (not one.alert.is_urgent, one.raised_at))
    if len(ordered) > SINGLY:
        yield ordered
    else:
        yield from ([one] for one in ordered)


def _uri(model_name: str) -> str:
    return lake.alerts(model_name, "channels.json")
