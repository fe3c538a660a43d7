"""Airflow's long-running programs as a local stack has them: ``python -m dev.airflow webserver``, or another.

Its log servers listen on this machine alone, a webserver that was killed leaves nothing behind that serves on, and one
that starts on a busy machine does not take a passing process for its worker.
"""

import os
import sys
from contextlib import suppress

import psutil
from airflow.__main__ import main
from airflow.utils import serve_logs

from dev.environment import MARKER, host

_ENDS_WITHIN_SECONDS = 10


class _LocalApplication(serve_logs.StandaloneGunicornApplication):  # type: ignore[misc]  # airflow is untyped here
    """Airflow's log server binds to all addresses, and there is no option for it."""

    def load_config(self) -> None:
        super().load_config()
        port = self.cfg.address[0][1]
        self.cfg.set("bind", f"{host()}:{port}")


# Not in main(): where processes are spawned and not forked, as on macOS, the log server's imports this file anew.
serve_logs.StandaloneGunicornApplication = _LocalApplication


def end_orphans(stack: str) -> None:
    """Ends what a killed webserver of this stack has left: gunicorn, which goes on serving, and holds the port.

    Args:
        stack: The stack's folder, by which its processes are marked.
    """
    found = [process for process in psutil.process_iter() if _serves(process, stack)]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=_ENDS_WITHIN_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def _serves(process: psutil.Process, stack: str) -> bool:
    with suppress(psutil.Error, OSError):
        words = " ".join(process.cmdline())
        return "gunicorn" in words and "airflow-webserver" in words and process.environ().get(MARKER) == stack
    return False


def count_workers_only() -> None:
    """Lets Airflow's monitor of gunicorn count its workers, and no other child.

    While gunicorn imports Airflow, croniter starts ``file``. Taken for the worker, it is missed a moment later: the
    monitor sends gunicorn a signal, which stops a program that does not listen to it yet, and waits for minutes.
    """
    from airflow.cli.commands.webserver_command import GunicornMonitor

    def workers(monitor: GunicornMonitor) -> int:
        found = 0
        for child in psutil.Process(monitor.gunicorn_master_proc.pid).children():
            with suppress(psutil.NoSuchProcess):
                found += "gunicorn" in " ".join(child.cmdline())
        return found

    GunicornMonitor._get_num_workers_running = workers


if __name__ == "__main__":
    if sys.argv[1:2] == ["webserver"]:
        count_workers_only()
        if MARKER in os.environ:
            end_orphans(os.environ[MARKER])
    main()
