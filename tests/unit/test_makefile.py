"""What make hands to the programs: words as the user wrote them. The real Makefile, with another Python."""

import json
import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ODD = ["it's $HOME", 'he said "no" `id` $(id) $$', "a  b", "ü+100%; #1 \\ back", "-v", "$(shell id)", "x=y *"]


@pytest.fixture
def make(tmp_path: Path):
    """Calls make; returns the arguments of the program that a recipe starts."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf \'%s\\0\' "$word"; done > "$SEEN"\n')
    python.chmod(0o755)

    def call(*words: str, **variables: str) -> list[str]:
        command = ["make", "-C", str(REPOSITORY), "-o", ".venv/installed", f"BIN={tmp_path}", *words]
        env = os.environ | variables | {"SEEN": str(tmp_path / "seen")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return (tmp_path / "seen").read_text().split("\0")[:-1]

    return call


@pytest.mark.parametrize("odd", ODD)
def test_make_passes_words_on_unharmed(make, odd: str) -> None:
    stack = "--state=.local/stack"
    assert make("rollback", f"REASON={odd}")[2:] == ["rollback", stack, f"--reason={odd}"]
    assert make("rollback", f"REASON={odd}", f"TO={odd}")[4:] == [f"--reason={odd}", f"--to={odd}"]
    assert make("rollback", f"REASON={odd}", f"REPLACES={odd}", "FORCE=1")[4:] == [
        f"--reason={odd}", f"--replaces={odd}", "--force",
    ]  # fmt: skip
    assert make("upload", f"FILE={odd}")[2:] == ["upload", stack, "--", odd]
    assert make("upload", f"FILE={odd}", "FORCE=1", f"STACK={odd}")[3:] == [
        f"--state=.local/{odd}", "--force", "--", odd,
    ]  # fmt: skip
    said = [f"--name={odd}", f"--reason={odd}"]
    assert make("approve", f"RUN={odd}", f"NAME={odd}", f"REASON={odd}", "FORCE=1")[2:] == [
        "approve", stack, f"--run={odd}", *said, "--force",
    ]  # fmt: skip
    assert make("reject", f"VERSION={odd}", f"NAME={odd}", f"REASON={odd}")[4:] == [f"--version={odd}", *said]
    assert make("establish", f"RUN={odd}", f"NAME={odd}", f"REASON={odd}")[2:] == ["establish", stack, *said, "--", odd]
    assert make("readmit", f"RUN={odd}", f"NAME={odd}", "APPROVE=1")[4:] == ["--approve", f"--name={odd}", "--", odd]
    assert make("reproduce", f"VERSION={odd}")[2:] == ["reproduce", stack, "--", odd]
    assert make("export", f"VERSION={odd}", f"DIR={odd}")[2:] == ["export", stack, f"--to={odd}", "--", odd]
    assert make("rejected", f"RUN={odd}")[2:] == ["rejected", stack, f"--run={odd}"]
    assert make("demo", f"DATA={odd}", f"TEXT={odd}", f"LABEL={odd}", f"TEST={odd}")[2:] == [
        "demo", f"--data={odd}", f"--text={odd}", f"--label={odd}", f"--test={odd}",
    ]  # fmt: skip
    assert make("rollback", REASON=odd)[4:] == [f"--reason={odd}"], "from the environment, too"


def test_what_is_not_given_is_not_passed_on(make) -> None:
    assert make("demo") == ["-m", "dev", "demo"]
    assert make("rejected") == ["-m", "dev", "rejected", "--state=.local/stack"]
    assert make("up", "STACK=try") == ["-m", "dev", "up", "--state=.local/try"]
    assert json.dumps(make("bench", "SAMPLES=3")) == '["-m", "dev.bench", "cpu", "--samples=3"]'


@pytest.mark.parametrize(
    "target", ["upload", "rollback", "restore", "approve", "reject", "establish", "reproduce", "export"]
)
def test_what_has_to_be_given_is_asked_for(target: str) -> None:
    command = ["make", "-C", str(REPOSITORY), "-o", ".venv/installed", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"make {target} " in done.stdout
