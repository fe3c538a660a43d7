"""Makes an earlier model the champion again: `make rollback` for where there is no shell."""

from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import REASON, STARTED_BY_HAND
from include.settings import settings


@dag(
    dag_id="model_rollback",
    description="Makes an earlier version the champion again, once it has been loaded and has answered.",
    **STARTED_BY_HAND,
    params={
        "reason": REASON,
        "to_version": Param(
            None,
            type=["null", "string"],
            pattern=r"^[0-9]+$",
            title="Version",
            description="The version to make champion. Empty: the previous champion.",
        ),
        "replaces": Param(
            None,
            type=["null", "string"],
            pattern=r"^[0-9]+$",
            title="Replaces",
            description="Only if this version is the champion. Empty: the champion at the moment this run was asked "
            "for. If it is another one by now, nothing happens.",
        ),
        "name": Param(
            None,
            type=["null", "string"],
            title="Your name",
            description="Who says so; kept in the ledger. Empty: this DAG.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="In an emergency: the alias moves without the target being loaded first. The ledger says so.",
        ),
    },
    doc_md="""
Started by hand, or by whoever watches the model. The target is loaded and answers all golden rows before the alias
`champion` moves; if it does not serve, the champion stays. The run's note says what is given up: how many rows each of
the two gets right, and which come wrong again. No threshold hinders it. Two who ask at once roll back once: a run does
nothing if the version it is to replace is not the champion any more. The ledger keeps name, reason and this run's id;
who started it is in the audit log.
""",
)
def model_rollback() -> None:
    @task
    def roll_back(dag_run: Any = None, params: Any = None) -> str:
        from include.markdown import plain
        from include.orchestration import notes, rollback
        from include.registry import promotion, smoke

        try:
            outcome = rollback.roll_back(
                settings().model_name,
                actor=f"person:{params['name']}" if params["name"] else f"dag:{dag_run.dag_id}",
                reason=params["reason"],
                to_version=params["to_version"],
                replaces=params["replaces"],
                asked_at=dag_run.queued_at,
                force=params["force"],
                dag_run_id=dag_run.run_id,
            )
        except (promotion.PromotionRefused, smoke.SmokeTestFailed) as error:
            raise AirflowFailException(f"not rolled back: {error}") from error
        notes.set_note(dag_run.dag_id, dag_run.run_id, plain(outcome))
        return outcome

    roll_back()


model_rollback()
