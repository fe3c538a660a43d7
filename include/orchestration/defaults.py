"""What every DAG has in common."""

from datetime import datetime, timedelta
from typing import Any

from include.orchestration.notes import note_failure
from include.orchestration.params import refuse_wrong_request

START = datetime(2025, 1, 1)

AWS = "aws_default"
WAREHOUSE = "warehouse"
SCHEMA = "public"  # of the warehouse's tables
GPU_POOL = "gpu"
MERGE_POOL = "warehouse_merge"

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "ml-platform",
    "retries": 3,
    "retry_delay": timedelta(seconds=15),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "on_failure_callback": note_failure,
    "pre_execute": refuse_wrong_request,
}
