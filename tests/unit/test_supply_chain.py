"""The list of what the image is made of, and the exceptions of its audit."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dev import audit
from dev.audit import NotAsked, refuse_ignorance

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


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """A server that answers as OSV does, from this dict of vulnerabilities by package."""
    known: dict[str, list[dict[str, Any]]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            package = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            body = json.dumps({"vulns": known[package]} if package in known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield known
        server.shutdown()


def vulnerability(name: str, alias: str, package: str) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
    affected = [{"package": {"name": package, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": name, "aliases": [alias], "summary": "reads any file", "affected": affected}


def test_a_finding_fails_the_check_unless_it_is_in_the_list(
    database: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, ignored = tmp_path / "requirements.txt", tmp_path / "audit-ignore.txt"
    lock.write_text("badpackage==1.0\ngoodpackage[extra]==2.0")
    monkeypatch.setattr(audit, "LOCKS", [lock])
    monkeypatch.setattr(audit, "REPOSITORY", tmp_path)
    database["jinja2"] = [vulnerability("PYSEC-2019-217", "CVE-2019-10906", "jinja2")]
    database["badpackage"] = [vulnerability("PYSEC-2099-1", "CVE-2099-1", "badpackage")]
    ignored.write_text("# CVE-2099-1 is only spoken of\nCVE-2099-2 is another one\n")
    assert audit.main() == 1
    assert capsys.readouterr().err == "badpackage 1.0: PYSEC-2099-1 CVE-2099-1, fixed in 99: reads any file\n"
    ignored.write_text("CVE-2099-1 its server mode, which is never started\n")
    assert audit.main() == 0


@pytest.mark.parametrize(("required", "status"), [("", 0), ("required", 1)])
def test_a_database_that_cannot_be_asked_is_said_aloud(
    required: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/nobody-listens")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("BERT_AUDIT", required)
    assert audit.main() == status
    said = capsys.readouterr().err
    assert said.startswith("THE AUDIT DID NOT RUN")
    assert said.count("\n") == 1


def test_a_database_that_knows_nothing_is_not_taken_for_a_clean_bill(database: dict[str, Any]) -> None:
    with pytest.raises(NotAsked, match="knows nothing against"):
        refuse_ignorance()


def test_make_check_audits() -> None:
    assert "bin/python -m dev.audit" in recipe("check")


def test_every_exception_of_the_audit_has_a_reason() -> None:
    lines = (REPOSITORY / "audit-ignore.txt").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or (audit.IGNORED.match(line) and len(line) > 40), line
