"""The process manager: supervisord, its configuration, and what is left over when it dies."""

import configparser
import os
import pwd
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from dev.environment import MARKER
from dev.state import REPOSITORY, State

_TASK_STOP_SECONDS = 60  # a training task saves a checkpoint when it is asked to end


@dataclass(frozen=True)
class Program:
    """One program of the stack."""

    name: str
    command: Sequence[str]
    user: str = ""
    stop_signal: str = "TERM"
    stop_seconds: int = 30
    start_seconds: int = 2  # one that ends sooner has failed to start
    start_retries: int = 2
    whole_group: bool = True  # signal the children too


class StartError(RuntimeError):
    """A program of the stack does not come up; the message says which and shows the end of its log."""


def start_supervisor(state: State, programs: Sequence[Program], environment: Mapping[str, str]) -> None:
    """Starts supervisord in the background, with all programs known and none started. Raises StartError."""
    with os.fdopen(os.open(state.supervisor_conf, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        _configuration(state, programs).write(file)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(state.supervisor_conf)]
    done = subprocess.run(command, env=dict(environment), cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise StartError(f"supervisord did not start:\n{done.stdout}{done.stderr}")
    deadline = time.monotonic() + 30
    while not is_running(state):
        if time.monotonic() > deadline:
            raise StartError(f"supervisord does not answer; see {state.logs / 'supervisord.log'}")
        time.sleep(0.1)


def promised_ports() -> set[int]:
    """Ports of the other stacks that run here: their programs may take half a minute until they listen."""
    folders = {folder for _, folder in _marked()}
    ports: set[int] = set()
    for folder in folders:
        with suppress(OSError, ValueError, TypeError):
            ports |= set(asdict(State(Path(folder)).ports).values())
    return ports


def is_running(state: State) -> bool:
    """Whether this state's supervisord answers."""
    with suppress(OSError, HTTPException, xmlrpc.client.Error, FileNotFoundError):
        return bool(_call(state, "getState")["statename"] == "RUNNING" and _call(state, "getPID") == _pid(state))
    return False


def start(state: State, name: str) -> None:
    """Starts one program; does not wait for it."""
    _call(state, "startProcess", name, False)


def statuses(state: State) -> dict[str, str]:
    """Each program's state in supervisord's words: RUNNING, STARTING, BACKOFF, FATAL, STOPPED …"""
    return {str(info["name"]): str(info["statename"]) for info in _call(state, "getAllProcessInfo")}


def pids(state: State) -> dict[str, int]:
    """Each running program's process id."""
    return {str(info["name"]): int(info["pid"]) for info in _call(state, "getAllProcessInfo") if info["pid"]}


def stop(state: State, names: Sequence[str]) -> None:
    """Stops some programs, all at once, and waits until they have ended."""
    for name in names:
        with suppress(xmlrpc.client.Fault):  # not running, or not of this stack
            _call(state, "stopProcess", name, False)
    while any(statuses(state).get(name) in ("STOPPING", "RUNNING", "STARTING") for name in names):
        time.sleep(0.1)


def shut_down(state: State) -> None:
    """Ends supervisord, and whatever it still runs."""
    pid = _pid(state)
    _call(state, "shutdown")
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        psutil.Process(pid).wait(60)


def end_left_overs(state: State) -> int:
    """Ends every process of this state that supervisord does not hold: tasks of a stopped scheduler, all after a crash.

    Only the topmost of each tree is signalled at first, so that a task can pass it on in its own way and save its work.
    The caller and its ancestors are spared. Returns how many there were.
    """
    found = list(_left_overs(state))
    pids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:
                process.terminate()
    _, alive = psutil.wait_procs(found, timeout=_TASK_STOP_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(found)


def _left_overs(state: State) -> Iterator[psutil.Process]:
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    if is_running(state):
        manager = psutil.Process(_pid(state))
        spared |= {manager.pid, *(child.pid for child in manager.children(recursive=True))}
    for process, folder in _marked():
        if folder == str(state.folder) and process.pid not in spared:
            yield process


def _marked() -> Iterator[tuple[psutil.Process, str]]:
    """All processes of all stacks, each with its stack's folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            folder = process.environ().get(MARKER)
            if folder and process.status() != psutil.STATUS_ZOMBIE:
                yield process, folder


def _configuration(state: State, programs: Sequence[Program]) -> configparser.RawConfigParser:
    ports, secrets = state.ports, state.secrets
    sections: dict[str, dict[str, Any]] = {
        "supervisord": {
            "logfile": state.logs / "supervisord.log",
            "pidfile": state.supervisor_pid,
            "childlogdir": state.logs,
            "directory": REPOSITORY,
        },
        "inet_http_server": {
            "port": f"127.0.0.1:{ports.supervisor}",
            "username": "admin",
            "password": secrets.supervisor_password,
        },
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    if os.geteuid() == 0:
        sections["supervisord"]["user"] = pwd.getpwuid(0).pw_name  # said aloud, or supervisord complains
    sections |= {f"program:{program.name}": _section(state, program) for program in programs}
    parser = configparser.RawConfigParser()
    parser.read_dict(
        {
            name: {option: str(value).replace("%", "%%") for option, value in options.items()}
            for name, options in sections.items()
        }
    )
    return parser


def _section(state: State, program: Program) -> dict[str, Any]:
    section = {
        "command": shlex.join(program.command),
        "autostart": "false",  # one after the other, as each becomes healthy
        "autorestart": "true",
        "startsecs": program.start_seconds,
        "startretries": program.start_retries,
        "stopsignal": program.stop_signal,
        "stopwaitsecs": program.stop_seconds,
        "stopasgroup": str(program.whole_group).lower(),
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": state.logs / f"{program.name}.log",
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 1,
    }
    return section | ({"user": program.user} if program.user else {})


def _pid(state: State) -> int:
    try:
        return int(state.supervisor_pid.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _call(state: State, method: str, *arguments: Any) -> Any:
    """One call of supervisord's XML-RPC interface."""
    address = f"http://admin:{state.secrets.supervisor_password}@127.0.0.1:{state.ports.supervisor}/RPC2"
    with xmlrpc.client.ServerProxy(address) as proxy:
        return getattr(proxy.supervisor, method)(*arguments)
