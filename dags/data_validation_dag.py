"""Watches the champion every day: what came is checked, drift is decided on, and a retraining started if it is due."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.models.param import Param
from airflow.operators.trigger_dagrun import TriggerDagRunOperator

from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.settings import settings

DECISION = "ti.xcom_pull(task_ids='decide_on_drift')"


def validation(dag_run: Any, params: Any) -> Any:
    """The checks of this run: about the champion's day that its parameter names, or the last whole one."""
    from include.orchestration.validating import Validation

    return Validation(dag_run, settings().model_name, params["day"])


@dag(
    dag_id="data_validation_dag",
    description="Checks what came since yesterday, and decides whether the champion is to be retrained.",
    schedule="@daily",
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=TASK_DEFAULTS,
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day",
            description="YYYY-MM-DD (UTC), today's will do. Empty: the last whole day. Of one more than a week ago "
            "nothing follows: its checks and its page are made.",
        ),
    },
    tags=["bert", "monitoring"],
    doc_md="""
Checks a day's uploads, curated rows and answers: a source whose columns are wrong stops the run; quality, distributions
and anomalies report all they find and stop nothing. The champion's traffic is tested for drift with at most
`BERT_FALSE_ALARMS_PER_YEAR` false alarms; what follows stands in the ledger with its reasons. `retrain` starts
`model_retraining_dag`, `label` writes the texts worth most to `monitoring/<model>/to_label/`. Results are rows of
`monitoring_results`, the day's page lies in `reports/data_validation_dag/<model>/<day>/`. Repeated, a run changes
nothing. docs/validation.md has every check with its threshold.
""",
)
def data_validation_dag() -> None:
    @task
    def validate_schema(dag_run: Any = None, params: Any = None) -> dict[str, int]:
        return validation(dag_run, params).check_schema()

    @task
    def check_data_quality(dag_run: Any = None, params: Any = None) -> dict[str, int]:
        return validation(dag_run, params).check_quality()

    @task
    def check_distributions(dag_run: Any = None, params: Any = None) -> dict[str, int]:
        return validation(dag_run, params).check_distributions()

    @task
    def detect_anomalies(dag_run: Any = None, params: Any = None) -> dict[str, int]:
        return validation(dag_run, params).detect_anomalies()

    @task
    def decide_on_drift(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        return validation(dag_run, params).decide()

    @task.short_circuit
    def is_retraining_due(decision: dict[str, Any]) -> bool:
        return bool(decision["starts"])

    decision = decide_on_drift()
    retrain = TriggerDagRunOperator(
        task_id="trigger_retraining",
        trigger_dag_id="model_retraining_dag",
        trigger_run_id=f"drift__{{{{ {DECISION}['decision_id'] }}}}",
        conf={
            "reason": f"{{{{ {DECISION}['reason'] }}}}",
            "decision_id": f"{{{{ {DECISION}['decision_id'] }}}}",
        },
        skip_when_already_exists=True,
    )
    checked = [check_data_quality(), check_distributions(), detect_anomalies()]
    validate_schema() >> checked >> decision
    is_retraining_due(decision) >> retrain


data_validation_dag()
