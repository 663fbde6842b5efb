import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import grpc
import httpx
import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import SessionServicer, backend

NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Front:
    """Envoy with substitutes as its upstreams."""

    port: int
    access_log: Path
    sessions: SessionServicer

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def logged(self) -> str:
        """What the access log has so far: Envoy creates it with its first lines."""
        return self.access_log.read_text() if self.access_log.exists() else ""


@contextmanager
def bridge(port: int) -> Iterator[None]:
    """An echo server; its first message is the path of the handshake."""

    def healthz(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(HTTPStatus.OK, "ok") if request.path == "/healthz" else None

    def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(connection.request.path)
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", port, process_request=healthz) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("envoy")
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), names=NAMES, requests_each=1000)
    with backend(endpoints.server_port) as sessions, bridge(endpoints.bridge_port), envoy(folder, endpoints):
        yield Front(endpoints.port, folder / "access.log", sessions)


@pytest.fixture
def http(front: Front) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.http, timeout=10) as client:
        yield client


@pytest.fixture
def channel(front: Front) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{front.port}") as channel:
        yield channel
