"""The task that sends alerts: it waits for them without a worker, and looks at what nobody else would notice."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowSkipException
from airflow.models import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

logger = logging.getLogger(__name__)

LONGEST_RUN = timedelta(days=1)
POLL_SECONDS = 10.0
GATHER_SECONDS = 2.0  # one event often raises several alerts
SOONEST = timedelta(seconds=30)  # between two tries
WITHOUT_CHANNEL = timedelta(minutes=15)  # then connections are looked for again
LOOK_SECONDS = 60.0


class SendAlerts(BaseOperator):
    """Sends what is in the outbox whenever something is due there; a run of it lasts a day.

    What a channel does not take stays in the outbox, and the run's note says so: this task succeeds all the same.
    """

    def __init__(self, *, model_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name

    def execute(self, context: Any) -> None:
        """Sends what is due, and waits for more."""
        from include.alerts import outbox
        from include.orchestration import notes, sending

        run, now = context["dag_run"], datetime.now(UTC)
        seen = outbox.names(self.model_name)
        outlook = sending.flush(self.model_name, now)
        notes.set_note(run.dag_id, run.run_id, sending.note(outlook))
        if now - context["ti"].start_date > LONGEST_RUN:
            raise AirflowSkipException(f"{LONGEST_RUN} are over; the next run goes on")
        hears = bool(outlook.standings)
        until = max(outlook.next_at, now + SOONEST) if outlook.next_at else now + LONGEST_RUN
        # What was raised while the others were being sent was not seen, and wakes the trigger at once.
        left = set(seen).intersection(outbox.names(self.model_name))
        self.defer(
            trigger=AlertTrigger(
                model_name=self.model_name,
                known=digest(left) if hears else None,
                until=(until if hears else now + WITHOUT_CHANNEL).isoformat(),
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Any, event: Any = None) -> None:
        """Sends what has come meanwhile, and waits again: the trigger has seen another outbox."""
        self.execute(context)


class AlertTrigger(BaseTrigger):
    """Fires when the outbox is another than the known one, or at a time; looks at what is late while it waits.

    Without ``known`` there is no channel, and the outbox is not looked at.
    """

    def __init__(self, model_name: str, known: str | None, until: str, poll_seconds: float = POLL_SECONDS) -> None:
        super().__init__()
        self.model_name, self.known, self.until, self.poll_seconds = model_name, known, until, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the triggerer finds this class, and its arguments."""
        names = ("model_name", "known", "until", "poll_seconds")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, without a message. A bucket that is away, or a database, is asked again."""
        loop, until, looked = asyncio.get_running_loop(), datetime.fromisoformat(self.until), 0.0
        # By a clock that nobody sets, too: one that was set back would hold up what is due.
        latest = loop.time() + (until - datetime.now(UTC)).total_seconds()
        while datetime.now(UTC) < until and (now := loop.time()) < latest:
            if now - looked >= LOOK_SECONDS:
                looked = now
                await asyncio.to_thread(self._look)
            if self.known is not None and await asyncio.to_thread(self._is_another):
                await asyncio.sleep(min(GATHER_SECONDS, self.poll_seconds))
                break
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent(None)

    def _is_another(self) -> bool:
        from include.alerts import outbox

        try:
            return digest(outbox.names(self.model_name)) != self.known
        except Exception:
            logger.exception("cannot look at the outbox of alerts; the next look is in %.0f s", self.poll_seconds)
            return False

    def _look(self) -> None:
        from include.orchestration import looking

        try:
            looking.look(self.model_name)
        except Exception:
            logger.exception("cannot look at what is late; the next look is in %.0f s", LOOK_SECONDS)


def digest(names: Iterable[str]) -> str:
    """What a listing of the outbox is told by."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
