"""Prometheus metrics over HTTP. Each module declares its own metrics with `prometheus_client`, named `dalston_*`."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app, start_http_server


@contextmanager
def serve_metrics(host: str, port: int, path: Path | None = None) -> Iterator[None]:
    """Serves `/metrics` while the block runs, on the Unix socket `path` if there is one; port 0 means not at all.

    Raises:
        OSError: the port is taken, or the socket cannot be made.
    """
    if path is None and port == 0:
        yield
        return
    server, thread = start_http_server(port, host) if path is None else _start_on_socket(path)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def _start_on_socket(path: Path) -> tuple[WSGIServer, threading.Thread]:
    path.unlink(missing_ok=True)
    server = _UnixServer(str(path), _Handler)  # type: ignore[arg-type]  # a path where the type has host and port
    server.set_app(make_wsgi_app())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return server, thread


class _UnixServer(ThreadingMixIn, WSGIServer):
    """The standard library's server on a Unix socket, whose clients have no address."""

    address_family = socket.AF_UNIX
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = self.socket.accept()
        return connection, ("", 0)


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Logs nothing: a line per scrape is of no use."""
