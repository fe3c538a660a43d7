"""What a run of ``collect_feedback`` does, and what it says of it."""
# Only imported inside tasks.

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.models import DagRun

from include import lake
from include.datasets.names import FEEDBACK
from include.markdown import plain
from include.orchestration import notes
from include.serving import feedback


def collect(dag_run: DagRun, model_name: str, *, today: bool) -> dict[str, Any]:
    """Sends the corrections back that came up to yesterday, or also today's; returns the files and how many rows."""
    until = datetime.now(UTC).date() - timedelta(days=0 if today else 1)
    name = lake.slug(dag_run.run_id) if today else f"{until:%Y-%m-%d}"
    sent = feedback.send_back(model_name, name, until)
    notes.set_note(dag_run.dag_id, dag_run.run_id, plain(_told(sent)))
    return {"files": [one.uri for one in sent if one.rows], "rows": sum(one.rows for one in sent)}


def _told(sent: list[feedback.Sent]) -> str:
    if not sent:
        return "No corrections have come since the last run."
    reasons = Counter(one["reason"] for file in sent for one in file.left_out)
    gone = f"{sum(file.rows for file in sent)} corrections went to {FEEDBACK}"
    left = "; ".join(f"{count} could not: {reason}" for reason, count in reasons.most_common())
    return f"{gone}. {left}" if left else f"{gone}."
