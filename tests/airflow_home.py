"""Imported before Airflow first is: a home of its own, no examples, and names that never resolve to anything real."""

import os
import shutil
import tempfile

VALUES = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
    "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": "airflow.* astro.*",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
}

HOME = tempfile.mkdtemp(prefix="airflow-")
os.environ |= VALUES | {"AIRFLOW_HOME": HOME}


def remove() -> None:
    """Deletes the home."""
    shutil.rmtree(HOME, ignore_errors=True)
