"""The hub's answers, by a real server on this machine, and what becomes of a base model when it has none."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "vocab.txt": b"[PAD]",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickled",
    "onnx/model.onnx": b"for others",
    "README.md": b"# ours",
}
MEAN = {"1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}'}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Two models, ``org/mean`` and ``org/cls``; ``faults`` are answers that a path gives before the right one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = {"org/mean": FILES | MEAN, "org/cls": dict(FILES)}
        self.faults: dict[str, list[int]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *ignored: object) -> None:
        pass

    def do_GET(self) -> None:
        hub: Hub = self.server  # type: ignore[assignment]
        path = self.path.split("?")[0]
        hub.asked.append(path)
        fault = next((name for name, left in hub.faults.items() if left and path.endswith(name)), None)
        if fault is not None:
            self._answer(hub.faults[fault].pop(0), b"busy", {"Retry-After": "0"})
            return
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = hub.models.get(name)
        if files is None:
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif parts[0] == "api":
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            self._answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        elif (content := files.get("/".join(parts[4:]))) is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    do_HEAD = do_GET

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


PROGRAM = """
import json, sys, time
from pathlib import Path
from include.training.errors import TrainingError
from include.training.sources import fetch_base_model, pools_by_mean
time.sleep = lambda seconds: None
try:
    folder, revision = fetch_base_model(sys.argv[1], sys.argv[2], "", Path(sys.argv[3]) / "base")
except TrainingError as error:
    print(json.dumps({"error": str(error)}))
else:
    files = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
    print(json.dumps({"revision": revision, "files": files, "mean": pools_by_mean(folder)}))
"""


@pytest.fixture
def fetch(server: Hub, tmp_path: Path) -> Iterator[Callable[..., dict]]:
    """Fetches a base model in a process that knows this hub from its start; its own cache is kept between calls."""

    def call(name: str, revision: str = "", **environment: str) -> dict:
        ours = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "huggingface"), "HF_HUB_OFFLINE": "0"}
        work = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, name, revision, str(work)],
            env=os.environ | ours | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found: dict = json.loads(done.stdout.splitlines()[-1])
        return found

    server.faults.clear()
    server.asked.clear()
    yield call
    server.faults.clear()


NEEDED = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]


def test_a_model_comes_whole_and_of_one_commit_and_then_from_the_cache(server: Hub, fetch: Callable[..., dict]) -> None:
    expected = {"revision": COMMIT, "files": ["1_Pooling/config.json", *NEEDED], "mean": True}
    assert fetch("org/mean") == expected
    assert not any("onnx" in path or ".bin" in path for path in server.asked)
    assert fetch("org/mean", HF_HUB_OFFLINE="1") == expected
    assert fetch("org/mean", COMMIT) == expected


def test_a_model_that_has_no_word_on_pooling_has_none_offline_as_well(fetch: Callable[..., dict]) -> None:
    expected = {"revision": COMMIT, "files": NEEDED, "mean": False}
    assert fetch("org/cls") == expected
    assert fetch("org/cls", HF_HUB_OFFLINE="1") == expected


def test_a_hub_that_is_busy_is_asked_again(server: Hub, fetch: Callable[..., dict]) -> None:
    server.faults = {"/api/models/org/mean": [503, 429], "1_Pooling/config.json": [500], "model.safetensors": [429]}
    assert fetch("org/mean")["mean"] is True
    assert not any(server.faults.values())


@pytest.mark.parametrize("where", ["/api/models/org/mean", "1_Pooling/config.json"])
def test_a_hub_that_stays_busy_fails_and_changes_no_head(server: Hub, fetch: Callable[..., dict], where: str) -> None:
    server.faults = {where: [503] * 100}
    assert "answered 503, also when asked again" in fetch("org/mean")["error"]


def test_what_the_hub_does_not_show_is_said_at_once(server: Hub, fetch: Callable[..., dict]) -> None:
    assert "does not show it to us (401): correct base_model" in fetch("org/none")["error"]
    assert server.asked.count("/api/models/org/none") == 1


def test_a_hub_out_of_reach_is_no_hub_without_pooling(fetch: Callable[..., dict]) -> None:
    assert "cannot be reached" in fetch("org/mean", HF_ENDPOINT="http://127.0.0.1:9")["error"]


def test_a_cache_that_cannot_tell_how_a_model_pools_is_not_guessed_from(
    fetch: Callable[..., dict], tmp_path: Path
) -> None:
    fetch("org/mean")
    for name in ("snapshots", "trees"):
        for path in (tmp_path / "huggingface").rglob(f"{name}/*/1_Pooling/config.json"):
            path.unlink()
    assert "not whether it pools by mean" in fetch("org/mean", HF_HUB_OFFLINE="1")["error"]
