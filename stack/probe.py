"""Whether a part answers over HTTP."""

import http.client
import os
import socket
import ssl
from contextlib import closing
from pathlib import Path


def answers(port: int, path: str, timeout: float = 5.0, tls: ssl.SSLContext | None = None) -> bool:
    """Whether what listens on `port` of 127.0.0.1 says 200 to a GET of `path`.

    It is asked many times a second: httpx would read the machine's certificates each time, and ask its proxy.
    """
    if tls is None:
        return _is_ok(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout), path)
    return _is_ok(http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=tls), path)


def answers_on_socket(socket_path: Path, path: str, timeout: float = 5.0) -> bool:
    """The same of what listens on a Unix socket, however long its path is."""
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
        # The path of a Unix socket may have no more than 107 characters; an open folder has a short name.
        handle = os.open(self._path.parent, os.O_RDONLY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{handle}/{self._path.name}")
        finally:
            os.close(handle)
