"""A proxy in front of an S3 server that does what networks and odd stores do."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>two at once</Message></Error>"


class Proxy:
    """Its address, and what it is to do wrong."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.address = ""
        self.faults: list[str] = []  # of the next writes: "conflict" or "lost answer"
        self.drops_headers: tuple[str, ...] = ()


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy for as long as the block runs."""
    proxy = Proxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.faults.pop(0) if self.command == "PUT" and proxy.faults else ""
            if fault == "conflict":
                self._answer(409, [("Content-Type", "application/xml")], CONFLICT)
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in proxy.drops_headers}
            upstream = http.client.HTTPConnection(proxy.target, timeout=60)
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
            if fault == "lost answer":
                self.close_connection = True
                self.connection.close()
                return
            kept = [(n, v) for n, v in response.getheaders() if n.lower() not in ("transfer-encoding", "connection")]
            self._answer(response.status, kept, content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
