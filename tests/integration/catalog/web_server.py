"""A real HTTP server on loopback whose answers a test scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebServer:
    """A real HTTP server on loopback whose answers the test scripts."""

    url: str
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler, bytes], None] | None = None


@contextmanager
def serve() -> Iterator[WebServer]:
    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append((self.command, self.path, seen, body))
            assert server.answer is not None
            server.answer(self, body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = respond

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = WebServer(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
