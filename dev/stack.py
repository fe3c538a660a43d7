"""The whole project on one machine without Docker: PostgreSQL, S3, MLflow and Airflow, up and down."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from dev import chosen, postgres, processes, services
from dev.airflow_settings import import_settings
from dev.environment import airflow_env, environment, postgres_url
from dev.processes import StartError
from dev.state import DEFAULT_STATE, REPOSITORY, State

HEALTHY_WITHIN_SECONDS = 400.0
DAGS_WITHIN_SECONDS = 300.0
DAGS = ("bert_model_training_pipeline", "model_rollback", "s3_upload_listener")
_STARTS_BEFORE_FAILURE = 3
_LOG_TAIL_LINES = 30
Report = Callable[[str], None]


class Stack:
    """One stack, known by its state folder. Any process may hold a Stack of the same folder.

    With ``services_only`` it starts all but Airflow, for an Airflow that is started otherwise (see ``airflow_env``).
    """

    def __init__(
        self,
        folder: Path = DEFAULT_STATE,
        env_overrides: Mapping[str, str] | None = None,
        *,
        services_only: bool = False,
    ) -> None:
        self.state = State(folder)
        self._overrides = dict(env_overrides or {})
        self.services_only = services_only
        self._without = services.AIRFLOW if services_only else ()

    @property
    def env(self) -> dict[str, str]:
        """The environment of all programs. Raises FileNotFoundError if the stack was never up."""
        return environment(self.state, self._overrides)

    @property
    def s3(self) -> Any:
        """A boto3 client of the stack's S3."""
        return services.s3_client(self.env)

    @property
    def airflow(self) -> httpx.Client:
        """A client of Airflow's REST API, logged in as admin; paths are relative to ``/api/v1``."""
        url = f"http://127.0.0.1:{self.state.ports.airflow}/api/v1"
        return httpx.Client(base_url=url, auth=("admin", "admin"), timeout=60, trust_env=False)

    @property
    def airflow_url(self) -> str:
        """Airflow's address for a browser."""
        return f"http://localhost:{self.state.ports.airflow}"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's address."""
        return f"http://127.0.0.1:{self.state.ports.mlflow}"

    @property
    def serving_url(self) -> str:
        """The model server's address."""
        return f"http://127.0.0.1:{self.state.ports.serving}"

    @property
    def s3_url(self) -> str:
        """The S3 endpoint."""
        return f"http://127.0.0.1:{self.state.ports.s3}"

    @property
    def warehouse_url(self) -> str:
        """SQLAlchemy URL of the warehouse database."""
        return postgres_url(self.state.ports, self.state.secrets, "warehouse")

    def up(self, report: Report = lambda _: None) -> bool:
        """Brings everything up and returns when it is healthy.

        Left-overs of a crash are cleared first. If a program does not come up, everything is stopped again.

        Args:
            report: called with a line for each step.

        Returns:
            False if it was up already. Raises StartError with the failed program's log, or with the settings that are
            not right.
        """
        with self._locked():
            if self._is_healthy():
                return False
            self.state.keep_settings(chosen.choose(self.state, self._overrides))
            self._stop(report)
            try:
                self._start(report)
            except BaseException:
                with _uninterrupted():
                    report("stopping")
                    self._stop(report)
                raise
        return True

    def down(self, report: Report = lambda _: None) -> bool:
        """Stops everything, and leaves the data; returns False if nothing ran."""
        if not self.state.folder.exists():
            return False
        with self._locked(), _uninterrupted():
            return self._stop(report)

    @contextmanager
    def running(self, report: Report = lambda _: None) -> Iterator["Stack"]:
        """The stack, up for as long as the block runs. Raises StartError."""
        try:
            self.up(report)
            yield self
        finally:
            self.down(report)

    def statuses(self) -> dict[str, str]:
        """Each program's state; empty if nothing is up."""
        return processes.statuses(self.state) if processes.is_running(self.state) else {}

    def pids(self) -> dict[str, int]:
        """Each running program's process id."""
        return processes.pids(self.state) if processes.is_running(self.state) else {}

    def is_healthy(self, name: str) -> bool:
        """Whether one program answers as it should."""
        return services.health_checks(self.state)[name]()

    def _is_healthy(self) -> bool:
        checks = services.health_checks(self.state).items()
        return processes.is_running(self.state) and all(check() for name, check in checks if name not in self._without)

    def _start(self, report: Report) -> None:
        self.state.make_folders()
        with _choosing_ports():
            self.state.choose_ports(processes.promised_ports())
            programs = [program for program in services.programs(self.state) if program.name not in self._without]
            processes.start_supervisor(self.state, programs, self.env)
        self._start_programs("postgres", "s3", report=report)
        postgres.create_databases(self.state)
        services.create_buckets(self.env)
        processes.start(self.state, "mlflow")  # takes as long as Airflow's migration: side by side
        self._initialise_airflow(report)
        if self._without:
            self._start_programs("mlflow", "serving", report=report)
            self._write_airflow_env()
            return
        self._start_programs("webserver", "scheduler", "triggerer", "mlflow", "serving", report=report)
        with self.airflow as client:
            import_settings(client, REPOSITORY / "airflow_settings.yaml", self.env)
            wait_for_dags(client, *DAGS)

    def _write_airflow_env(self) -> None:
        self.state.airflow_env.touch(mode=0o600)  # it holds the database's password
        lines = (f"{name}={value}\n" for name, value in sorted(airflow_env(self.env).items()))
        self.state.airflow_env.write_text("".join(lines))

    def _start_programs(self, *names: str, report: Report) -> None:
        begun = time.monotonic()
        report(f"starting {', '.join(names)}")
        for name in names:
            if processes.statuses(self.state)[name] == "STOPPED":
                processes.start(self.state, name)
        checks = services.health_checks(self.state)
        waiting, seen = list(names), {name: set[int]() for name in names}
        while waiting:
            # In their order: Airflow's other programs are asked about through its webserver, so its log comes first.
            for name in tuple(waiting):
                if checks[name]():
                    waiting.remove(name)
                    report(f"{name} is healthy after {time.monotonic() - begun:.0f} s")
                else:
                    self._give_up_on_failure(name, seen[name], time.monotonic() - begun)
            time.sleep(0.25)

    def _give_up_on_failure(self, name: str, seen: set[int], seconds: float) -> None:
        """Raises StartError if there is no hope: supervisord gave up, or restarts it again and again, or time is up."""
        seen.add(processes.pids(self.state).get(name, 0))
        status = processes.statuses(self.state)[name]
        if status == "FATAL" or len(seen - {0}) >= _STARTS_BEFORE_FAILURE or seconds > HEALTHY_WITHIN_SECONDS:
            log = self.state.logs / f"{name}.log"
            raise StartError(f"{name} did not become healthy (it is {status}). The end of {log}:\n{_tail(log)}")

    def _initialise_airflow(self, report: Report) -> None:
        wanted = version("apache-airflow")
        if self.state.initialised.exists() and self.state.initialised.read_text() == wanted:
            return
        log = self.state.logs / "airflow_setup.log"
        report("preparing Airflow's database")
        with log.open("w") as output:
            command = [sys.executable, "-m", "dev.airflow_setup"]
            done = subprocess.run(command, env=self.env, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode:
            raise StartError(f"Airflow's database could not be prepared. The end of {log}:\n{_tail(log)}")
        self.state.initialised.write_text(wanted)

    def _stop(self, report: Report) -> bool:
        running = processes.is_running(self.state)
        if running:
            processes.stop(self.state, services.AIRFLOW)
            # Its tasks may outlive the scheduler; they still need S3, MLflow and the database to save their work.
            processes.end_left_overs(self.state)
            processes.stop(self.state, ("serving",))  # it logs its last answers
            processes.stop(self.state, ("mlflow",))
            processes.shut_down(self.state)
        left_over = processes.end_left_overs(self.state)
        if left_over:
            report(f"ended {left_over} processes that had outlived their process manager")
        postgres.end_left_over(self.state)
        for file in self.state.airflow_home.glob("*.pid"):
            file.unlink()
        return running or bool(left_over)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One up or down at a time; a second one waits."""
        self.state.folder.mkdir(parents=True, exist_ok=True)
        with _file_lock(self.state.lock):
            yield


@contextmanager
def fresh(
    folder: Path,
    overrides: Mapping[str, str],
    console: Console,
    *,
    prepare: Callable[[], None] = lambda: None,
    services_only: bool = False,
) -> Iterator[Stack]:
    """A stack without a past, up for as long as the block runs; its data stays for a look at it.

    Args:
        folder: what a stack before it has left there is deleted.
        overrides: of the programs' environment.
        console: says what is waited for.
        prepare: writes what the programs read from their start, once the folder is empty.
        services_only: all but Airflow.
    """
    stack = Stack(folder, overrides, services_only=services_only)
    chosen.choose(State(folder / "fresh"), overrides)  # before anything is deleted
    stack.down()
    shutil.rmtree(stack.state.folder, ignore_errors=True)
    stack.state.folder.mkdir(parents=True)
    prepare()
    programs = "PostgreSQL, S3, MLflow and " + ("the model server" if services_only else "Airflow")
    with console.status(f"starting {programs}") as status:
        stack.up(lambda line: status.update(line))
    try:
        yield stack
    finally:
        with console.status("stopping the stack"):
            stack.down()


@contextmanager
def _file_lock(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def wait_for_dags(airflow: httpx.Client, *dags: str) -> None:
    """Returns when Airflow knows these DAGs. Raises StartError if it cannot import one, with its reason."""
    deadline = time.monotonic() + DAGS_WITHIN_SECONDS
    while missing := [dag for dag in dags if airflow.get(f"/dags/{dag}").status_code == httpx.codes.NOT_FOUND]:
        for error in airflow.get("/importErrors").raise_for_status().json()["import_errors"]:
            raise StartError(f"Airflow cannot import {error['filename']}:\n{error['stack_trace']}")
        if time.monotonic() > deadline:
            raise StartError(f"Airflow has not found {', '.join(missing)} after {DAGS_WITHIN_SECONDS:.0f} s")
        time.sleep(0.5)


def _choosing_ports() -> AbstractContextManager[None]:
    """One stack of this user chooses at a time, until its choice can be seen."""
    return _file_lock(Path(tempfile.gettempdir()) / f"local-stack-ports-{os.getuid()}.lock")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave half a stack behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, signal.SIG_IGN) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _tail(log: Path) -> str:
    if not log.exists():
        return "(it is empty)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
