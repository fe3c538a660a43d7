"""Training by a notebook in place of the script: the same job, and the same result.json, which is all that counts.

The notebook gets ``job_uri``, reads the job there and writes ``result.json`` beside it: include/notebooks/train.ipynb
shows how. papermill runs it in a kernel of its own; the executed copy is kept, whether it ended well or not.
"""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException

from include import lake, objects
from include.ingestion.sources import PROJECT
from include.settings import settings
from include.training.stopping import follow_parent

logger = logging.getLogger("include.training_notebook")


@dataclass(frozen=True)
class Notebook:
    """A notebook that trains, and where its executed copy is kept."""

    path: Path
    kept: str

    def run(self, job_uri: str) -> int:
        """Runs it in this process's name; returns the exit code. The last line that is logged says what went wrong."""
        import papermill
        from papermill.exceptions import PapermillExecutionError

        follow_parent(os.getppid())
        logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("include").setLevel("INFO")
        logging.getLogger("papermill").setLevel("INFO")  # what its cells print
        result = f"{job_uri.rsplit('/', 1)[0]}/result.json"
        if objects.exists(result):
            logger.info("the job is done already")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            executed = Path(folder) / self.path.name
            told = ""
            try:
                papermill.execute_notebook(
                    self.path, executed, {"job_uri": job_uri}, kernel_name="python3", language="python", cwd=PROJECT,
                    log_output=True, progress_bar=False,
                )  # fmt: skip
            except PapermillExecutionError as error:
                first = error.source.strip().partition("\n")[0]
                said = " ".join(error.evalue.split())
                told = f"{self.path.name}, cell [{error.exec_count}] ({first}): {error.ename}: {said}"
            finally:
                if executed.exists():
                    objects.upload_file(executed, self.kept)
                    logger.info("the executed notebook is %s", self.kept)
        if not told and not objects.exists(result):
            told = f"{self.path.name} ended without having written {result}"
        if told:
            logger.error("%s", told)
        return 1 if told else 0


def notebook_of(context: Any) -> Notebook | None:
    """The notebook that a task trains with; None if none is set. Raises AirflowException if there is no such file."""
    if not (name := settings().training_notebook):
        return None
    path, dag_run = PROJECT / name, context["dag_run"]
    if not path.is_file():
        raise AirflowException(f"there is no notebook {path} (TRAINING_NOTEBOOK)")
    return Notebook(path, lake.report(dag_run.dag_id, dag_run.run_id, path.name))
