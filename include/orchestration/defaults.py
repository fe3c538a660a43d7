"""What every DAG has in common."""

from datetime import datetime, timedelta
from typing import Any

from airflow.models.param import Param

from include.orchestration.alerts import tell_if_timed_out, tell_of_failure
from include.orchestration.params import refuse_wrong_request

START = datetime(2025, 1, 1)

AWS = "aws_default"
WAREHOUSE = "warehouse"
SPARK = "spark_default"
SCHEMA = "public"  # of the warehouse's tables
GPU_POOL = "gpu"
MERGE_POOL = "warehouse_merge"

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "ml-platform",
    "retries": 3,
    "retry_delay": timedelta(seconds=15),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "on_failure_callback": tell_of_failure,
    "pre_execute": refuse_wrong_request,
}

OF_EVERY_DAG: dict[str, Any] = {
    "start_date": START,
    "catchup": False,
    "is_paused_upon_creation": False,
    "on_failure_callback": tell_if_timed_out,
}

STARTED_BY_HAND: dict[str, Any] = OF_EVERY_DAG | {
    "schedule": None,
    "max_active_runs": 1,
    "dagrun_timeout": timedelta(hours=1),
    "default_args": TASK_DEFAULTS,
    "tags": ["bert", "admin"],
}
"""The arguments of a DAG that a person starts."""

NAME = Param(type="string", minLength=1, title="Your name", description="Who says so; kept in the ledger")
REASON = Param(type="string", minLength=1, title="Reason", description="Why; kept in the ledger")
