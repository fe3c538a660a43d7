"""Airflow's programs as a local stack starts them."""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from airflow.cli.commands.webserver_command import GunicornMonitor

from dev.airflow import count_workers_only


def test_a_passing_child_of_gunicorn_is_not_taken_for_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = GunicornMonitor._get_num_workers_running
    monkeypatch.setattr(GunicornMonitor, "_get_num_workers_running", theirs)  # puts it back
    count_workers_only()
    children = "['sleep', '60']", "[sys.executable, '-c', 'import time; time.sleep(60)', 'gunicorn']"
    starts = "; ".join(f"subprocess.Popen({child})" for child in children)
    code = f"import subprocess, sys; {starts}; print('started', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as master:
        assert master.stdout is not None
        master.stdout.readline()
        monitor = SimpleNamespace(gunicorn_master_proc=master)
        children_there = theirs(monitor), GunicornMonitor._get_num_workers_running(monitor)
        for child in psutil.Process(master.pid).children():
            child.kill()
        master.kill()
    assert children_there == (2, 1)
