"""A person decides about a run's rows: `make readmit` and `make establish` for where there is no shell."""

from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import NAME, REASON, STARTED_BY_HAND
from include.settings import settings


@dag(
    dag_id="decide_upload",
    description="A person decides about a run's rows: corrections, rows set aside, golden rows.",
    **STARTED_BY_HAND,
    params={
        "run_id": Param(type="string", minLength=1, title="Run", description="The run that took the upload in"),
        "decision": Param(
            type="string",
            enum=["approve_corrections", "readmit", "establish"],
            title="Decision",
            description="approve_corrections: what waits for approval is right. readmit: take back what was set aside. "
            "establish: the golden rows that came with the upload judge from now on.",
        ),
        "name": NAME,
        "reason": REASON,
    },
    doc_md="""
*approve_corrections*: a file that changes many golden labels waits until somebody says that the new labels are right;
with this it joins the next run, which is started. *readmit*: rows that were set aside, as those of a challenger that
was shown worse, join the next run. *establish*: golden rows judge once a model that learnt from their upload was
promoted; with this they do so now, and for ever. The run's note says what happened. Repeated, it changes nothing.
""",
)
def decide_upload() -> None:
    @task
    def carry_out(dag_run: Any = None, params: Any = None) -> str:
        from include.markdown import plain
        from include.orchestration import establishing, notes, readmit

        model_name, by = settings().model_name, f"dag:{dag_run.dag_id} {dag_run.run_id}"
        run_id, name, reason = params["run_id"], params["name"], params["reason"]
        try:
            if params["decision"] == "establish":
                told = establishing.establish(model_name, run_id, name=name, reason=reason, by=by)
            else:
                approve = params["decision"] == "approve_corrections"
                told = readmit.readmit(model_name, run_id, actor=name, reason=reason, approve=approve, by=by)
        except (establishing.NothingToEstablish, readmit.NothingSetAside) as error:
            raise AirflowFailException(f"not carried out: {error}") from error
        notes.set_note(dag_run.dag_id, dag_run.run_id, plain(told))
        return told

    carry_out()


decide_upload()
