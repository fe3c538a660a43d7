"""A person decides about a label: the console's page *Labels* starts it, and elsewhere its form or REST does."""

from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import NAME, REASON, STARTED_BY_HAND
from include.settings import settings


@dag(
    dag_id="decide_labels",
    description="A person lets a new label in, or renames or merges labels.",
    **STARTED_BY_HAND,
    params={
        "decision": Param(
            type="string",
            enum=["admit", "merge", "withdraw"],
            title="Decision",
            description="admit: a new label joins with BERT_MIN_ROWS_PER_LABEL good rows. merge: the label counts as "
            "another one; if there is none of that name, it is renamed. withdraw: neither any more.",
        ),
        "label": Param(type="string", minLength=1, maxLength=200, title="Label"),
        "into": Param(
            None, type=["null", "string"], maxLength=200, title="Into", description="The label that it is to count as"
        ),
        "train": Param(
            True, type="boolean", title="Train", description="Start a training by it, if none is still to begin"
        ),
        "name": NAME,
        "reason": REASON,
    },
    doc_md="""
*admit*: rows of a label that the champion does not know wait for more of it; with this they join as soon as there are
`BERT_MIN_ROWS_PER_LABEL`. *merge*: the champion's rows, the golden rows and new ones with the label count as another,
for good once a model that learnt so is promoted. *withdraw*: what was said and is not live holds no more. It holds for
each run that begins later, beside `BERT_ADMITTED_LABELS` and `BERT_LABEL_MAPPING`; the ledger has it with the name and
the reason, the run's note says what follows. Repeated, it changes nothing.
""",
)
def decide_labels() -> None:
    @task
    def carry_out(dag_run: Any = None, params: Any = None) -> str:
        from include.markdown import plain
        from include.orchestration import label_decisions, notes

        said = {"name": params["name"], "reason": params["reason"], "run_id": dag_run.run_id}
        try:
            told = label_decisions.decide_label(
                settings().model_name, params["decision"], params["label"], params["into"] or "", **said
            )
        except label_decisions.LabelRefused as error:
            raise AirflowFailException(f"not carried out: {error}") from error
        if params["train"] and not told.startswith("nothing to do"):
            told = f"{told}; {label_decisions.train(dag_run.run_id)}"
        notes.set_note(dag_run.dag_id, dag_run.run_id, plain(told))
        return told

    carry_out()


decide_labels()
