"""The packages of this checkout in CycloneDX's format, beside a version that was exported."""

import json
import subprocess
import sys
from pathlib import Path

from dev.state import REPOSITORY

DECIDING = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors")


def write_sbom(folder: Path) -> list[str]:
    """Writes ``sbom.json`` into an export; a sentence for each library that its version was trained with another of.

    Raises CalledProcessError if the packages cannot be listed.
    """
    target = folder / "sbom.json"
    options = ["--output-reproducible", "--pyproject", "pyproject.toml", "--mc-type", "application"]
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", *options, "-o", str(target), "requirements.txt"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    listed = {one["name"]: one.get("version", "") for one in json.loads(target.read_text())["components"]}
    trained = json.loads((folder / "result.json").read_text())["versions"]
    return [
        f"sbom.json is this checkout's and has {name} {listed[name]}; the version was trained with {trained[name]}"
        for name in DECIDING
        if name in trained and name in listed and trained[name].split("+")[0] != listed[name].split("+")[0]
    ]
