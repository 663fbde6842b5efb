"""Metrics on a Unix socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.metrics import serve_metrics


def get(path: Path, method: str = "GET") -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(f"{method} /metrics HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "metrics.sock"
    with serve_metrics("127.0.0.1", 0, path):
        yield path


def test_metrics_are_served_on_a_unix_socket(served: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer = get(served)
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert b"python_info{" in answer
    assert get(served, "POST").startswith(b"HTTP/1.0 405 ")
    assert capfd.readouterr() == ("", "")


def test_the_socket_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    for _ in range(2):
        with serve_metrics("127.0.0.1", 0, path):
            assert b"python_info{" in get(path)


def test_nothing_is_served_by_default() -> None:
    with serve_metrics("127.0.0.1", 0):
        pass
