"""Scores files or a table with the champion."""

from datetime import timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.models.param import Param

from include.orchestration.defaults import STARTED_BY_HAND
from include.settings import settings


@dag(
    dag_id="batch_predictions",
    description="Scores files or a table with the champion.",
    **STARTED_BY_HAND | {"dagrun_timeout": timedelta(days=1), "tags": ["bert", "serving"]},
    params={
        "source": Param(
            type="string",
            minLength=1,
            title="Source",
            description="A .csv, .jsonl or .parquet file (s3://…), a folder ending in /, or a table of the warehouse",
        ),
        "text_column": Param(
            settings().text_column or None,
            type=["null", "string"],
            title="Text column",
            description="Empty: found by its usual names.",
        ),
        "output": Param(
            None,
            type=["null", "string"],
            pattern=r"^s3://[^/]+/.+",
            title="Output",
            description="Folder for the answers, as Parquet. Empty: one of this run's among the reports.",
        ),
        "version": Param(
            None,
            type=["null", "string"],
            pattern=r"^[0-9]+$",
            title="Version",
            description="Empty: the champion when the run begins.",
        ),
    },
    doc_md="""
Each row comes back with its label, how probable it is, and the second best, beside all columns that it had. The answers
are in the prediction log too, so they can be corrected as the server's. A run that is killed goes on, when its task is
tried again, with the part that it was at, and with the version it began with.
""",
)
def batch_predictions() -> None:
    @task
    def score(dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from include.orchestration import batch_scoring
        from include.serving.batch import CannotScore

        try:
            return batch_scoring.score(dag_run, settings().model_name, params)
        except CannotScore as error:
            raise AirflowFailException(str(error)) from error

    score()


batch_predictions()
