"""The list of what the image is made of, and the exceptions of its audit."""

import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def recipe(target: str) -> str:
    """A target's commands in the Makefile, as the shell gets them."""
    command = ["make", "--dry-run", "--always-make", "--old-file=setup", "BIN=bin", target]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def test_the_sbom_names_every_pinned_package(tmp_path: Path) -> None:
    (command,) = re.findall(r"bin/python -m (cyclonedx_py .*?)$", recipe("sbom").replace("\\\n", ""), re.MULTILINE)
    words = [str(tmp_path / "sbom.json") if word == ".local/sbom.json" else word for word in command.split()]
    subprocess.run([sys.executable, "-m", *words], cwd=REPOSITORY, check=True, capture_output=True)
    sbom = json.loads((tmp_path / "sbom.json").read_text())
    pinned = dict(
        re.findall(r"^([\w.-]+)(?:\[.*?\])?==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert len(pinned) > 200
    assert {component["name"]: component["version"] for component in sbom["components"]} == pinned
    assert all(component["purl"].startswith("pkg:pypi/") for component in sbom["components"])


def test_the_audit_fails_on_what_it_does_not_know() -> None:
    assert "--strict" in recipe("audit")


def test_every_exception_of_the_audit_has_a_reason() -> None:
    lines = (REPOSITORY / "audit-ignore.txt").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9-]+ .{20,}", line), line
