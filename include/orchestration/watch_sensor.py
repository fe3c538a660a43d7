"""Sensors that watch a champion for minutes or a day, without a worker between two looks."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.triggers.temporal import DateTimeTrigger

from include.orchestration.waiting_sensor import WaitingSensor

LONGEST_WATCH = timedelta(days=1)  # of BERT_WATCH_MINUTES and BERT_CANARY_MINUTES, counted from before the sensor began
MOST_FAILED_LOOKS = 30
"""Tries of a sensor: a store that is away for an hour does not end a watch."""


class WatchSensor(WaitingSensor):
    """Looks, and waits in the triggerer until it is time to look again.

    A look that fails, because a store does not answer, is a failed try: the next one looks again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"retries": MOST_FAILED_LOOKS, "timeout": LONGEST_WATCH.total_seconds()} | kwargs))

    def look(self, context: Any) -> str | datetime:
        """What became of what is watched, in words, or when to look again."""
        raise NotImplementedError

    def execute(self, context: Any) -> str:
        """Looks once, and defers if there is more to see; returns what became of it, which the run's note says too."""
        from include.markdown import plain
        from include.orchestration import notes
        from include.registry import promotion, smoke

        try:
            found = self.look(context)
        except promotion.ChampionLost as error:
            raise AirflowFailException(str(error)) from error
        except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
            raise AirflowFailException(f"it failed, and is champion still: {error}") from error
        if isinstance(found, datetime):
            self.wait(context, DateTimeTrigger(moment=found), "the end of the watch")
        run = context["dag_run"]
        notes.add_to_note(run.dag_id, run.run_id, plain(found))
        return found


class CanarySensor(WatchSensor):
    """Watches a new champion that has only a share of the requests yet."""

    template_fields: Sequence[str] = ("version",)

    def __init__(self, *, version: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version

    def look(self, context: Any) -> str | datetime:
        """Looks at the canary: how it ended, or when to look next."""
        from include.orchestration import canaries
        from include.orchestration.warehouse import warehouse
        from include.settings import settings

        found = canaries.watch(settings().model_name, self.version, warehouse(), dag_run_id=context["dag_run"].run_id)
        return found or datetime.now(UTC) + canaries.pause()


class ChampionSensor(WatchSensor):
    """Watches a new champion.

    Args:
        version: it; templated. Without one it is what a task before has made the champion.
        after: those tasks' ids; skips if they promoted nothing. Without any, and without a version, it looks whether
            somebody has set another champion in MLflow, and has that one watched.
    """

    template_fields: Sequence[str] = ("version",)

    def __init__(self, *, version: str = "", after: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version, self.after = version, after

    def look(self, context: Any) -> str | datetime:
        """Looks at the champion: how its watch ended, or when to look next."""
        from include.orchestration import watching
        from include.orchestration.warehouse import warehouse
        from include.settings import settings

        run = context["dag_run"]
        if not self.version and not self.after:
            return watching.notice(settings().model_name, warehouse())
        return watching.look(
            settings().model_name, self.version or self._promoted(context), warehouse(),
            actor=f"dag:{run.dag_id}", dag_run_id=run.run_id,
        )  # fmt: skip

    def _promoted(self, context: Any) -> str:
        decided = next(filter(None, context["ti"].xcom_pull(task_ids=list(self.after))), None) or {}
        if decided.get("outcome") != "promoted":
            raise AirflowSkipException(f"nothing was promoted ({decided.get('outcome')}): there is nothing to watch")
        return str(decided["version"])
