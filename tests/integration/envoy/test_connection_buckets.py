"""One address opens as many idle connections as it can."""

import socket
import time
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from stack.envoy import Endpoints, envoy
from stack.ports import free_port

HEAD = b"HEAD /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
OTHERS = [f"127.0.0.{number}" for number in range(2, 34)]
ALL, EACH = 60, 10


def is_answered(port: int, source: str) -> bool:
    with socket.create_connection(("127.0.0.1", port), 10, (source, 0)) as client:
        try:
            client.sendall(HEAD)
            return client.recv(12) == b"HTTP/1.1 200"
        except ConnectionError:
            return False


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_one_address_that_holds_connections_leaves_most_to_others(tmp_path: Path, data: bytes) -> None:
    shares = fill(tmp_path, data)
    # Its bucket is an eighth of all addresses; so few addresses are not divided evenly.
    assert 0.6 < shares < 1


def test_a_proxy_has_no_bucket(tmp_path: Path) -> None:
    assert fill(tmp_path, b"", proxies=(ip_network("127.0.0.1/32"),)) == 0


def fill(folder: Path, data: bytes, **more: Any) -> float:
    """The share of other addresses that are answered."""
    endpoints = Endpoints(
        ["127.0.0.1"], free_port(), free_port(), free_port(), connections=ALL, connections_each=EACH, **more
    )
    with envoy(folder, endpoints), ExitStack() as held:
        for _ in range(2 * ALL):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", endpoints.port), 10))
            with suppress(ConnectionError):
                connection.sendall(data)
        time.sleep(0.5)
        return sum(is_answered(endpoints.port, each) for each in OTHERS) / len(OTHERS)
