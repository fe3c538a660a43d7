"""Makes an earlier model the champion again: `make rollback` for where there is no shell."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import START, TASK_DEFAULTS
from include.settings import settings


@dag(
    dag_id="model_rollback",
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=1),
    default_args=TASK_DEFAULTS,
    params={
        "reason": Param(type="string", minLength=1, title="Reason", description="Why; kept in the ledger"),
        "to_version": Param(
            None,
            type=["null", "string"],
            pattern=r"^[0-9]+$",
            title="Version",
            description="The version to make champion. Empty: the previous champion.",
        ),
    },
    tags=["bert", "admin"],
    doc_md="""
Started by hand only. The target is loaded and scored on golden rows before the alias `champion` moves; if it does not
serve, the champion stays. The ledger keeps the reason and this run's id; who started it is in the audit log.
""",
)
def model_rollback() -> None:
    @task
    def roll_back(dag_run: Any = None, params: Any = None) -> str:
        from include.orchestration import notes, rollback
        from include.registry import promotion, smoke

        try:
            outcome = rollback.roll_back(
                settings().model_name,
                actor=f"dag:{dag_run.dag_id}",
                reason=params["reason"],
                to_version=params["to_version"],
                dag_run_id=dag_run.run_id,
            )
        except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
            raise AirflowFailException(f"not rolled back: {error}") from error
        notes.set_note(dag_run.dag_id, dag_run.run_id, outcome)
        return outcome

    roll_back()


model_rollback()
