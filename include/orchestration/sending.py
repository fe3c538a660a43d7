"""Sends the outbox's alerts by the providers' hooks: to Slack, and by mail.

    python -m include.orchestration.sending [--now]

shows what is unsent, and why; with ``--now`` it is tried first. Each channel is off unless its connection exists.
"""

import argparse
import logging
import math
import smtplib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.exceptions import AirflowException, AirflowNotFoundException
from airflow.hooks.base import BaseHook
from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.stats import Stats
from airflow.utils.email import send_email

from include.alerts import delivery, outbox, rendering
from include.alerts.delivery import Channel, NotDelivered, Outlook
from include.alerts.outbox import Alert
from include.markdown import plain
from include.settings import is_set_for_airflow, quiet, settings

logger = logging.getLogger(__name__)

SLACK, MAIL = "slack_default", "smtp_default"
TIMEOUT_SECONDS = 10  # of each step of a request: a server that hangs holds up nothing but the next try
BODY_SHOWN = 200
BAD_REQUEST = 400  # what Slack answers to a message that it cannot read


def flush(model_name: str, now: datetime | None = None) -> Outlook:
    """Sends what is due now; returns what is left. Raises what S3 or Airflow's database raises, not what a channel."""
    now = now or datetime.now(UTC)
    found, off = channels(model_name)
    for reason in off:
        logger.info("%s", reason)
    outlook = delivery.deliver(model_name, found, now=now, quiet=quiet.parse(settings().quiet_hours))
    Stats.gauge("alerts_unsent", len(outlook.unsent))
    return outlook


def channels(model_name: str) -> tuple[dict[str, Channel], list[str]]:
    """What alerts go to, by the connection's id; and a sentence on each that is off."""
    found: dict[str, Channel] = {}
    off = []
    if _exists(SLACK):
        found[SLACK] = lambda alerts: _to_slack(model_name, alerts)
    else:
        off.append(f"no alerts go to Slack: there is no connection {SLACK} (Slack Incoming Webhook)")
    if not settings().alert_emails:
        off.append("no alerts go by mail: BERT_ALERT_EMAILS names nobody")
    elif _exists(MAIL):
        found[MAIL] = lambda alerts: _by_hook(model_name, alerts)
    elif conf.get("smtp", "smtp_host") != "localhost" or is_set_for_airflow("smtp", "smtp_host"):
        found[MAIL] = lambda alerts: _by_airflow(model_name, alerts)  # as a deployment from before was set up
    else:
        off.append(f"no alerts go by mail: there is no connection {MAIL} (SMTP)")
    return found, off


def address(target: str) -> str:
    """A link's target for a reader: ``airflow:<dag_id>/<run_id>[/<task_id>]`` becomes an address of the webserver."""
    if not target.startswith("airflow:"):
        return target
    dag_id, _, rest = target.removeprefix("airflow:").partition("/")
    run_id, _, task_id = rest.partition("/")
    base = conf.get("webserver", "base_url").rstrip("/")
    task = f"&task_id={quote(task_id, safe='')}&tab=logs" if task_id else ""
    return f"{base}/dags/{dag_id}/grid?dag_run_id={quote(run_id, safe='')}{task}"


def note(outlook: Outlook) -> str:
    """What a run's note says of what is unsent; empty if nothing has failed."""
    lines = [
        f"**{sum(name not in one.delivered for one in outlook.unsent)} alert(s) unsent**: {name}: "
        f"{plain(standing.error)}. Tried {standing.failures} time(s), next at {standing.not_before:%F %R} UTC."
        for name, standing in sorted(outlook.failing.items())
    ]
    return "\n\n".join(lines)


def _exists(connection: str) -> bool:
    try:
        BaseHook.get_connection(connection)
    except AirflowNotFoundException:
        return False
    return True


def _to_slack(model_name: str, alerts: Sequence[Alert]) -> None:
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    # Its own second tries would hold up this one; the outbox has them.
    hook = SlackWebhookHook(slack_webhook_conn_id=SLACK, timeout=TIMEOUT_SECONDS, retry_handlers=[])
    try:
        answer = hook.client.send_dict(rendering.slack(model_name, alerts, address))
    except (OSError, AirflowException, ValueError) as error:
        raise NotDelivered(f"Slack's webhook does not answer: {error}") from error
    if answer.status_code != 200:
        told = f"Slack's webhook answered {answer.status_code}: {(answer.body or '')[:BODY_SHOWN]}".rstrip(": ")
        raise NotDelivered(told, _retry_after(answer.headers), refused=answer.status_code == BAD_REQUEST)


def _retry_after(headers: dict[str, Any]) -> float | None:
    """The pause in seconds that an answer asks for: a number, or a date."""
    asked = str(next((value for name, value in headers.items() if name.lower() == "retry-after"), ""))
    try:
        seconds = float(asked)
        return None if math.isnan(seconds) else seconds
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None


class _OneTry(SmtpHook):
    """The provider's hook without its second tries, and without its patience."""

    @property
    def smtp_retry_limit(self) -> int:
        return 0

    @property
    def timeout(self) -> int:
        return min(int(super().timeout), TIMEOUT_SECONDS)


def _by_hook(model_name: str, alerts: Sequence[Alert]) -> None:
    subject, html = rendering.mail(model_name, alerts, address)
    try:
        with _OneTry(MAIL) as hook:
            sender = hook.from_email or conf.get("smtp", "smtp_mail_from")
            hook.send_email_smtp(
                to=list(settings().alert_emails), subject=subject, html_content=html, from_email=sender
            )
    except (OSError, smtplib.SMTPException, AirflowException) as error:
        raise NotDelivered(f"the mail server does not take it: {error}") from error


def _by_airflow(model_name: str, alerts: Sequence[Alert]) -> None:
    """By Airflow's own settings (``AIRFLOW__SMTP__…``, or another backend of ``AIRFLOW__EMAIL__…``)."""
    subject, html = rendering.mail(model_name, alerts, address)
    try:
        send_email(list(settings().alert_emails), subject, html)
    except Exception as error:  # a backend may be anything
        raise NotDelivered(f"the mail server does not take it: {type(error).__name__}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 1 if a channel fails."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.sending", description=__doc__)
    parser.add_argument("--model", default=settings().model_name, help="whose alerts (%(default)s)")
    parser.add_argument("--now", action="store_true", help="try to send what is due first")
    options = parser.parse_args(arguments)
    now = datetime.now(UTC)
    found, off = channels(options.model)
    if options.now:
        outlook = flush(options.model, now)
    else:
        before = delivery.standings(options.model)
        standings = {name: before.get(name, delivery.Standing()) for name in found}
        outlook = delivery.outlook(
            outbox.unsent(options.model), standings, now=now, quiet=quiet.parse(settings().quiet_hours)
        )
    for line in [*off, *_shown(outlook, now)]:
        print(line)
    return 1 if outlook.failing else 0


def _shown(outlook: Outlook, now: datetime) -> list[str]:
    if not outlook.unsent:
        return ["No alert is unsent."]
    lines = [f"{len(outlook.unsent)} alert(s) unsent:"]
    lines += [f"  {one.raised_at:%F %R} {one.alert.kind:<12} {one.alert.title}" for one in outlook.unsent]
    lines += [
        f"{name}: {one.error}. Tried {one.failures} time(s), next at {one.not_before:%F %R} UTC"
        for name, one in outlook.failing.items()
    ]
    if not outlook.failing and outlook.next_at and outlook.next_at > now:
        lines.append(f"They are sent at {outlook.next_at:%F %R} UTC: quiet hours, or many messages just now")
    return lines


if __name__ == "__main__":
    sys.exit(main())
