"""Looks every pinned package up in a database of known vulnerabilities, OSV's, by pip-audit: ``python -m dev.audit``.

It fails on each that audit-ignore.txt does not name. If the database cannot be asked it says so and passes; with
``BERT_AUDIT=required`` it fails.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from dev.state import REPOSITORY

LOCKS = (REPOSITORY / "requirements.txt", REPOSITORY / "include" / "training" / "requirements.txt")
IGNORED = re.compile(r"^([A-Za-z0-9-]+) ", re.MULTILINE)
_VULNERABLE = "jinja2==2.10"  # for years: a database that does not say so knows nothing


class NotAsked(RuntimeError):
    """The database could not be asked; the message says why."""


def findings(lock: Path, ignored: Collection[str] = ()) -> list[str]:
    """A line for each known vulnerability of the packages pinned in a file, and for each that was not looked up.

    Raises NotAsked.
    """
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--format", "json"]
    command += ["--progress-spinner", "off", "--no-deps", "--disable-pip", "--requirement", str(lock)]
    command += [f"--ignore-vuln={name}" for name in ignored]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it writes its answer only when it has all of it
        raise NotAsked(done.stderr.strip().rpartition("\n")[2]) from None
    skipped = [f"{package['name']}: {package['skip_reason']}" for package in packages if "skip_reason" in package]
    return skipped + [
        f"{package['name']} {package['version']}: {' '.join([found['id'], *found['aliases']])}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no version'}: {found['description'][:200]}"
        for package in packages
        for found in package.get("vulns", [])
    ]


def refuse_ignorance() -> None:
    """Raises NotAsked if the database is out of reach, or does not even know what everybody knows."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "requirements.txt")
        lock.write_text(_VULNERABLE)
        if not findings(lock):
            raise NotAsked(f"it knows nothing against {_VULNERABLE}")


def main() -> int:
    """Returns the exit status."""
    ignored = IGNORED.findall((REPOSITORY / "audit-ignore.txt").read_text())
    try:
        refuse_ignorance()
        found = [line for lock in LOCKS for line in findings(lock, ignored)]
    except NotAsked as reason:
        print(f"THE AUDIT DID NOT RUN. The database of vulnerabilities could not be asked: {reason}", file=sys.stderr)
        return int(os.environ.get("BERT_AUDIT") == "required")
    for line in dict.fromkeys(found):
        print(line, file=sys.stderr)
    print(f"audit: {len(set(found)) or 'no'} known vulnerabilities, {len(ignored)} passed over (audit-ignore.txt)")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
