"""All interfaces over TLS, with a certificate that is replaced while Envoy runs."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from dalston.v1 import session_pb2, session_pb2_grpc
from websockets.sync.client import connect

from stack.envoy import Certificate, Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import backend
from tests.integration.envoy.certificates import make_certificate
from tests.integration.envoy.conftest import bridge

PATH = "/v1/audio/transcriptions/stream"


@dataclass(frozen=True)
class Secured:
    port: int
    certificate: Certificate

    def context(self) -> ssl.SSLContext:
        """Trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate.chain))

    def serial(self) -> int:
        """The serial number of the current certificate."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificate")
    certificate = make_certificate(folder, 1)
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), certificate=certificate)
    with (
        backend(endpoints.server_port),
        bridge(endpoints.bridge_port),
        envoy(tmp_path_factory.mktemp("envoy"), endpoints),
    ):
        yield Secured(endpoints.port, certificate)


def test_rest_grpc_and_websocket_speak_tls(secured: Secured) -> None:
    with httpx.Client(verify=secured.context(), trust_env=False, timeout=10) as http:
        assert http.get(f"https://localhost:{secured.port}/v1/realtime/sessions").status_code == 200
    credentials = grpc.ssl_channel_credentials(secured.certificate.chain.read_bytes())
    with grpc.secure_channel(f"localhost:{secured.port}", credentials) as channel:
        answer = session_pb2_grpc.SessionServiceStub(channel).ListSessions(
            session_pb2.ListSessionsRequest(), timeout=10
        )
    assert answer.pagination.total == 1
    with connect(f"wss://localhost:{secured.port}{PATH}", ssl=secured.context(), proxy=None) as ws:
        assert ws.recv() == PATH


def test_http_without_tls_is_not_served(secured: Secured) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{secured.port}/v1/realtime/sessions", timeout=5, trust_env=False)


def test_a_new_certificate_is_used_without_a_restart(secured: Secured, tmp_path: Path) -> None:
    assert secured.serial() == 1
    make_certificate(secured.certificate.chain.parent, 2)
    deadline = time.monotonic() + 20
    while secured.serial() != 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert secured.serial() == 2
    with httpx.Client(verify=secured.context(), trust_env=False, timeout=10) as http:
        assert http.get(f"https://localhost:{secured.port}/v1/realtime/sessions").status_code == 200
