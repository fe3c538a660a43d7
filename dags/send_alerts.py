"""Sends alerts by mail and to Slack, once each; again later what was not taken."""

from datetime import timedelta

from airflow.decorators import dag

from include.orchestration.alert_sender import SendAlerts
from include.orchestration.defaults import OF_EVERY_DAG, TASK_DEFAULTS
from include.settings import settings


@dag(
    dag_id="send_alerts",
    description="Sends alerts by mail and to Slack, once each; again later what was not taken.",
    schedule="@continuous",
    **OF_EVERY_DAG,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=2),
    default_args=TASK_DEFAULTS,
    tags=["bert", "alerts"],
    doc_md="""
Whoever sees that something happened (a task that failed for good, a promotion, drift, an upload that is stuck) puts an
alert into `alerts/<model>/outbox/`; this sends it within seconds. Mail goes to `BERT_ALERT_EMAILS` if there is the
connection `smtp_default`, messages go to Slack if there is the webhook connection `slack_default`. What is not taken is
tried again with growing pauses; the run's note and `make alerts` show it. `docs/alerts.md` has the rest.
""",
)
def send_alerts() -> None:
    SendAlerts(task_id="send", model_name=settings().model_name)


send_alerts()
