"""What the sensors have in common that wait without a worker and look again themselves."""

from datetime import timedelta
from typing import Any, NoReturn

from airflow.exceptions import AirflowSensorTimeout
from airflow.sensors.base import BaseSensorOperator
from airflow.triggers.base import BaseTrigger
from airflow.utils import timezone

TIMED_OUT = "Trigger/execution timeout"  # how the scheduler says that a deferred task's timeout has passed


class WaitingSensor(BaseSensorOperator):
    """Looks in ``execute``, and once more whenever a wait has ended, by its trigger or by its time-out."""

    def __init__(self, *, deferrable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def wait(self, context: Any, trigger: BaseTrigger, what: str) -> NoReturn:
        """Waits for a trigger: ``timeout`` seconds at most since the try began, in all of its waits together.

        Raises AirflowSensorTimeout, after which Airflow tries no more, if they are over. ``what`` is named then.
        """
        now = timezone.utcnow()
        left = (context["ti"].start_date or now) + timedelta(seconds=self.timeout) - now  # `dags test` has no date
        if left <= timedelta(0):
            raise AirflowSensorTimeout(f"waited for {what} for {timedelta(seconds=self.timeout)}, and no longer")
        self.defer(trigger=trigger, method_name="execute_complete", timeout=left)
        raise AssertionError("unreachable")

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        """Looks again: what was waited for may have come, or gone."""
        return self.execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Looks a last time where the scheduler has ended a wait; no triggerer may have been there to do so."""
        if next_method == "__fail__" and (next_kwargs or {}).get("error") == TIMED_OUT:
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)
