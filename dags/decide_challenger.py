"""A person decides about a challenger that waits: `make approve` and `make reject` for where there is no shell."""

from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import NAME, REASON, STARTED_BY_HAND
from include.settings import settings


@dag(
    dag_id="decide_challenger",
    description="A person approves or rejects a challenger that waits.",
    **STARTED_BY_HAND,
    params={
        "run_id": Param(
            None,
            type=["null", "string"],
            title="Run",
            description="The run that ended awaiting approval. Empty: the version names the challenger.",
        ),
        "version": Param(None, type=["null", "string"], pattern=r"^[0-9]+$", title="Version", description="The same."),
        "decision": Param(type="string", enum=["approve", "reject"], title="Decision"),
        "name": NAME,
        "reason": REASON,
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Promote it though a gate fails by now: champion or golden rows may have changed since.",
        ),
    },
    doc_md="""
With `BERT_PROMOTION=manual` a challenger that passes the gates waits for a person, and its run ends with the outcome
`awaiting_approval` and a report. This carries out the answer. *approve*: it becomes the champion; if the champion or
the golden rows have changed since, it is compared anew, and is not promoted if a gate fails now. If the champion is of
other data than it was built on, it is superseded, and its rows join the next run. *reject*: its rows are set aside.

The same answer again changes nothing, and another one is refused. The ledger keeps name and reason, and this run's id;
who started it is in the audit log.
""",
)
def decide_challenger() -> None:
    @task
    def carry_out(dag_run: Any = None, params: Any = None) -> str:
        from include.markdown import plain
        from include.orchestration import decisions, notes
        from include.registry.promotion import PromotionRefused

        try:
            told = decisions.carry_out(
                settings().model_name,
                params["decision"],
                run_id=params["run_id"],
                version=params["version"],
                name=params["name"],
                reason=params["reason"],
                force=params["force"],
                by=f"dag:{dag_run.dag_id} {dag_run.run_id}",
            )
        except PromotionRefused as error:
            raise AirflowFailException(f"not carried out: {error}") from error
        notes.set_note(dag_run.dag_id, dag_run.run_id, plain(told))
        return told

    carry_out()


decide_challenger()
