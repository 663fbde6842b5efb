import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest

from stack.ports import free_port
from stack.probe import answers, answers_on_socket


class Part(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Part) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_only_the_status_200_is_ready(port: int) -> None:
    assert answers(port, "/healthz")
    assert not answers(port, "/busy")


def test_a_port_without_a_listener_is_not_ready() -> None:
    assert not answers(free_port(), "/healthz")


def test_no_proxy_is_used(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert answers(port, "/healthz")


def test_a_unix_socket_with_a_long_path_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "part.sock"
    assert not answers_on_socket(path, "/healthz")
    monkeypatch.chdir(folder)
    with UnixServer("part.sock", Part) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert answers_on_socket(path, "/healthz")
        assert not answers_on_socket(path, "/busy")
        server.shutdown()
        thread.join()
    assert not answers_on_socket(path, "/healthz")


class UnixServer(UnixStreamServer):
    def get_request(self) -> tuple[Any, Any]:
        return self.socket.accept()[0], ("", 0)
