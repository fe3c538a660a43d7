"""``download_data``: one mapped task per source."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException
from airflow.operators.bash import BashOperator

from include.ingestion import sources

SCRIPT = sources.PROJECT / "include" / "scripts" / "download.sh"


class DownloadData(BashOperator):
    """Lands what is new at a source: by a shell script with curl from FTP and HTTP servers, by hooks from the rest.

    The script's environment is made while the task runs, so that no credential is ever a rendered field.
    """

    template_fields: Sequence[str] = ("source",)

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(bash_command=f'bash "{SCRIPT}" "$FILES"', append_env=True, env={}, **kwargs)
        self.source = source

    def execute(self, context: Any) -> dict[str, Any]:
        """Fetches and lands; returns the counts."""
        from include.orchestration import fetching

        def run_script(files: Path, env: dict[str, str]) -> bool:
            self.env = {"FILES": str(files), **env}
            try:
                BashOperator.execute(self, context)
            except AirflowException:  # some are there all the same; what is not is told of later
                return False
            finally:
                self.env = {}
            return True

        found = sources.week().source(self.source)
        return fetching.download(found, fetching.until_of(context["dag_run"]), run_script)
