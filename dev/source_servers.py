"""Real FTP, SFTP and HTTP servers over a folder each, that break transfers off where a test wants them to; and what
speaks MongoDB's protocol."""

import asyncio
import base64
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "ada", 'p"w\\d:1'


@dataclass
class Host:
    """A server: what it serves, where it listens, and what it was asked for."""

    folder: Path
    port: int = 0
    breaks: int = 0  # that many transfers end after half of their bytes
    asked: list[str] = field(default_factory=list)
    damages: bool = False  # whether what is sent is not what its checksum says

    def write(self, name: str, content: str | bytes, at: float | None = None) -> Path:
        """Writes a file that was changed at a time, in seconds."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if at is not None:
            os.utime(path, (at, at))
        return path

    def takes_break(self) -> bool:
        """Whether the transfer that asks is to break."""
        self.breaks -= 1
        return self.breaks >= 0


@contextmanager
def ftp_server(folder: Path, masquerade: str = "", certificate: Path | None = None) -> Iterator[Host]:
    """A folder by FTP.

    Args:
        folder: The server's root.
        masquerade: The private address that it tells in answer to PASV, as one behind NAT does.
        certificate: PEM file with a certificate and its key: nothing is answered without TLS.
    """
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.log import config_logging
    from pyftpdlib.servers import FTPServer

    config_logging(level=logging.ERROR)  # or it does so itself when somebody comes, and tells of everything
    host = Host(folder)
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(folder), perm="elradfmw")

    class Half:
        """A file of which the second part never comes."""

        def __init__(self, producer: Any) -> None:
            self.producer, self.parts = producer, 0

        def more(self) -> bytes:
            self.parts += 1
            if self.parts > 1:
                raise ConnectionResetError("broken by the test")
            return bytes(self.producer.more())

    base: Any = TLS_FTPHandler if certificate else FTPHandler

    class Handler(base):  # type: ignore[misc]  # it comes without types
        def push_dtp_data(self, data: Any, isproducer: bool = False, file: Any = None, cmd: Any = None) -> None:
            if cmd == "RETR":
                host.asked.append(Path(file.name).name)
                data = Half(data) if host.takes_break() else data
            super().push_dtp_data(data, isproducer, file, cmd)

    Handler.authorizer, Handler.banner, Handler.use_gmt_times = authorizer, "hello", True
    if certificate:
        Handler.certfile, Handler.tls_control_required, Handler.tls_data_required = str(certificate), True, True
    Handler.use_sendfile, Handler.masquerade_address = False, masquerade or None
    server = FTPServer(("127.0.0.1", 0), Handler, ioloop=IOLoop())
    host.port = server.socket.getsockname()[1]
    running = threading.Event()

    def serve() -> None:
        running.set()
        while running.is_set():
            server.ioloop.loop(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        running.clear()
        thread.join(5)
        server.close_all()


@contextmanager
def sftp_server(folder: Path) -> Iterator[Host]:
    """Takes the user's password, and serves the folder as its root."""
    import asyncssh

    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    host = Host(folder)
    loop = asyncio.new_event_loop()

    class Server(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: Any) -> None:
            super().__init__(channel, chroot=str(folder).encode())

        def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
            host.asked.append(Path(path.decode()).name)
            return super().open(path, pflags, attrs)

        def read(self, file_obj: Any, offset: int, size: int) -> Any:
            if offset and host.takes_break():
                self.channel.get_connection().abort()
            return super().read(file_obj, offset, size)

    async def start() -> Any:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, sftp_factory=Files,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        )  # fmt: skip

    server = loop.run_until_complete(start())
    host.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, host: Host, *args: Any) -> None:
        self.host = host
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        if self.headers.get("Authorization") != "Bearer t0ken":
            self.say(401, b"who are you?", {}, body)
        elif parts.path == "/api/messages":
            self.say(200, json.dumps(self.page(parse_qs(parts.query))).encode(), {}, body)
        elif (path := self.host.folder / parts.path.lstrip("/")).is_file():
            self.file(path, body)
        else:
            self.say(404, b"", {}, body)

    def page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        rows = json.loads((self.host.folder / "messages.json").read_text())
        since, start = int(query.get("since", ["0"])[0]), int(query.get("offset", ["0"])[0])
        rows = [row for row in rows if row["id"] > since]
        following = f"/api/messages?since={since}&offset={start + 2}" if start + 2 < len(rows) else None
        return {"data": {"rows": rows[start : start + 2]}, "next": following}

    def file(self, path: Path, body: bool) -> None:
        content = path.read_bytes()
        tag = f'"{sha256(content).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        right = base64.b64encode(sha256(b"other" if self.host.damages else content).digest()).decode()
        headers["Repr-Digest"] = f"sha-256=:{right}:"
        asked = self.headers.get("Range", "")
        if body:
            self.host.asked.append(f"{path.name} {asked}".strip())
        start = int(asked.removeprefix("bytes=").partition("-")[0] or 0) if asked else 0
        if start and self.headers.get("If-Range", tag) == tag:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.say(206, content[start:], headers, body)
        else:
            self.say(200, content, headers, body)

    def say(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body and len(content) > 1000 and self.host.takes_break():
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content)


@contextmanager
def http_server(folder: Path) -> Iterator[Host]:
    """Wants a token; knows ranges and ETags, and an API with pages at ``/api/messages``."""
    host = Host(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Http, host))
    host.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mongo_server() -> Iterator[int]:
    """A stand-in for MongoDB that speaks its protocol and keeps all in memory; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    folder = tempfile.TemporaryDirectory()
    # One with a name of its own: it will not start beside another.
    options = ["--db", "memory", "-p", str(port), "--pid-file", f"{folder.name}/pid"]
    command = [sys.executable, "-c", "from nx_27017.nx_27017 import main; main()", *options]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()
        folder.cleanup()
