"""A stack's state folder: where its data, logs, secrets and ports lie."""

import json
import secrets
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cryptography.fernet import Fernet

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_STATE = REPOSITORY / ".local" / "stack"
DEMO_STATE = REPOSITORY / ".local" / "demo"


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1; the defaults are preferred, and the next free one is taken if one is in use."""

    airflow: int = 8080
    mlflow: int = 5000
    s3: int = 9000
    serving: int = 8000
    postgres: int = 5433
    supervisor: int = 9100
    task_logs: int = 8793
    trigger_logs: int = 8893

    @classmethod
    def free(cls, promised: Collection[int] = (), before: "Ports | None" = None) -> "Ports":
        """Ports nobody listens on, and nobody was promised: those from before, or else the next after the defaults.

        Raises OSError if a hundred in a row are taken.
        """
        chosen = {}
        for field in fields(cls):
            last = getattr(before or cls, field.name)
            kept = last not in promised and _is_free(last)
            chosen[field.name] = last if kept else _next_free(getattr(cls, field.name), promised)
        return cls(**chosen)


@dataclass(frozen=True)
class Secrets:
    """Made once for each state folder: Airflow cannot read its connections again with another Fernet key."""

    fernet_key: str
    webserver_key: str
    postgres_password: str
    supervisor_password: str


class State:
    """The folder of one stack; it is created by the first use that writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self.airflow_home = self.folder / "airflow"
        self.airflow_env = self.folder / "airflow.env"
        self.postgres = self.folder / "postgres"
        self.s3_file = self.folder / "s3.sqlite"
        self.s3_faults = self.folder / "s3.faults"
        self.supervisor_conf = self.folder / "supervisord.conf"
        self.supervisor_pid = self.folder / "supervisord.pid"
        self.initialised = self.folder / "airflow.initialised"
        self.lock = self.folder / "lock"
        self._settings = self.folder / "settings.json"
        self._ports, self._secrets = self.folder / "ports.json", self.folder / "secrets.json"

    def make_folders(self) -> None:
        """Creates the folders that programs write to."""
        for folder in (self.logs, self.airflow_home, self.postgres):
            folder.mkdir(parents=True, exist_ok=True)

    def choose_ports(self, promised: Collection[int] = ()) -> Ports:
        """Chooses free ports, none of those promised to others, and remembers them.

        They stay the same from start to start if they can: an unfinished job knows MLflow by its address.
        """
        ports = Ports.free(promised, self.ports if self._ports.exists() else None)
        self._ports.write_text(json.dumps(asdict(ports)))
        return ports

    @property
    def settings(self) -> dict[str, str] | None:
        """The ``BERT_*`` variables that the last start kept; None if it was before any were kept."""
        return dict(json.loads(self._settings.read_text())) if self._settings.exists() else None

    def keep_settings(self, variables: Mapping[str, str]) -> None:
        """Keeps ``BERT_*`` variables for this start and the next ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._settings.touch(mode=0o600)  # as the environment they come from, they are nobody else's
        self._settings.write_text(json.dumps(dict(variables), indent=2))

    @property
    def ports(self) -> Ports:
        """The ports chosen by the last start. Raises FileNotFoundError if there was none."""
        if not self._ports.exists():
            raise FileNotFoundError(f"no stack was ever up in {self.folder}; start one with: make up")
        return Ports(**json.loads(self._ports.read_text()))

    @property
    def secrets(self) -> Secrets:
        """This state's secrets, made at the first call."""
        if not self._secrets.exists():
            tokens = [secrets.token_hex(16) for _ in range(3)]
            made = Secrets(Fernet.generate_key().decode(), *tokens)
            self._secrets.touch(mode=0o600)
            self._secrets.write_text(json.dumps(asdict(made)))
        return Secrets(**json.loads(self._secrets.read_text()))


def _next_free(first: int, promised: Collection[int]) -> int:
    for port in range(first, first + 100):
        if port not in promised and _is_free(port):
            return port
    raise OSError(f"ports {first} to {first + 99} are all in use; stop a program that listens there")


def _is_free(port: int) -> bool:
    # On macOS a port taken on all interfaces can still be bound on 127.0.0.1: ask first whether anyone answers.
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return False
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
