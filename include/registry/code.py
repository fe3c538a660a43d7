"""Which code made a decision: the git commit where that says it all, a hash of the files otherwise."""

import hashlib
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("dags", "include")


def code_hash(project: Path = PROJECT) -> str:
    """``git:<commit>`` if dags/ and include/ are as committed, or ``sha256:<hash>`` of their files.

    The second is what images without .git give, and checkouts with changes.
    """
    commit = _git(project, "rev-parse", "HEAD")
    if commit and _git(project, "status", "--porcelain", "--", *FOLDERS) == "":
        return f"git:{commit}"
    digest = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (project / folder).rglob("*") if _is_source(path)):
        name = path.relative_to(project).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _git(project: Path, *arguments: str) -> str | None:
    """A git command's output; None where there is no git, no repository, or one of another owner."""
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
