"""The trainer as a process of a worker."""

import re
from typing import TYPE_CHECKING

from include.orchestration.forked import ForkedProcess

if TYPE_CHECKING:
    from include.orchestration.training_notebook import Notebook

LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ")


class TrainerProcess(ForkedProcess):
    """One run of the trainer's command, ``python -m include.training``. Asked to stop, it saves a checkpoint.

    With a ``notebook`` that trains the job.
    """

    def __init__(self, job_uri: str, notebook: "Notebook | None" = None) -> None:
        self.job_uri, self.notebook = job_uri, notebook
        super().__init__(f"include.training {job_uri}", self._train)

    def _train(self) -> int:
        if self.notebook is not None:
            return self.notebook.run(self.job_uri)
        from include.training.__main__ import main

        return main([self.job_uri, "--stop-with-parent"])


def failure(exit_code: int, last_line: str) -> str:
    """Why a trainer's process failed, and what to do about it; its last line says why if it ended by itself."""
    retry = "A retry goes on from the last checkpoint."
    if exit_code < 0:
        return (
            f"the trainer was killed by signal {-exit_code}, as for want of memory: a smaller batch_size or max_length "
            f"needs less. {retry}"
        )
    if exit_code in (130, 143):
        return f"the trainer was asked to stop and has saved a checkpoint (exit code {exit_code}). {retry}"
    said = LOG_PREFIX.sub("", last_line) or "it said nothing"
    return f"the trainer could not train the job (exit code {exit_code}): {said.rstrip('.')}. {retry}"
