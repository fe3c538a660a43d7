"""``download_data``: one mapped task per source, and sensors for the folders that are waited for."""

from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException
from airflow.operators.bash import BashOperator
from airflow.sensors.filesystem import FileSensor

from include.ingestion import sources

LOOK_SECONDS = 30
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


class WaitForFile(FileSensor):
    """Airflow's FileSensor for a path that is whole: no connection says where it begins."""

    @cached_property
    def path(self) -> str:
        """The files' pattern, as a shell reads it."""
        return str(self.filepath)


def wait_for_files(names: list[str]) -> list[WaitForFile]:
    """A sensor for each folder that is waited for, in the triggerer: the folder has to be mounted there, too."""
    listed = [sources.week().source(name) for name in names]
    return [
        WaitForFile(
            task_id=f"wait_for_{source.name.replace('-', '_')}",
            filepath=str(Path(source.path) / source.pattern),
            recursive=True,
            deferrable=True,
            poke_interval=LOOK_SECONDS,
            timeout=timedelta(minutes=source.wait_minutes),
            retries=0,
        )
        for source in listed
        if isinstance(source, sources.Folder) and source.wait_minutes
    ]
