"""Readiness checks of parts over HTTP."""

import http.client
import os
import socket
import ssl
from contextlib import closing
from pathlib import Path


def answers(port: int, path: str, timeout: float = 5.0, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the listener on `port` of 127.0.0.1 answers 200 to a GET of `path`.

    It is called many times a second: httpx would read the machine's certificates each time, and use its proxy.
    """
    if tls is None:
        return _is_ok(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout), path)
    return _is_ok(http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=tls), path)


def answers_on_socket(socket_path: Path, path: str, timeout: float = 5.0) -> bool:
    """The same for a Unix socket, however long its path is."""
    return _is_ok(_UnixConnection(socket_path, timeout), path)


def _is_ok(connection: http.client.HTTPConnection, path: str) -> bool:
    with closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        # The path of a Unix socket has at most 107 characters; an open folder has a short name.
        handle = os.open(self._path.parent, os.O_RDONLY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{handle}/{self._path.name}")
        finally:
            os.close(handle)
