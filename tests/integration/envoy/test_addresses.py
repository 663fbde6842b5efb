"""Which peer is trusted for a client's address, with and without proxies in front."""

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import SessionServicer, backend
from tests.integration.envoy.certificates import make_certificate

SESSIONS = "/v1/realtime/sessions"
STREAM = "/v1/audio/transcriptions/stream"
CLIENT, PROXY, INNER_PROXY = "127.0.0.1", "127.0.0.2", "127.1.2.3"
PROXIES = (ipaddress.ip_network(f"{PROXY}/32"), ipaddress.ip_network("127.1.2.0/24"))


@dataclass(frozen=True)
class Watched:
    """Envoy, the headers that its upstreams receive, and its log."""

    port: int
    sessions: SessionServicer
    access_log: Path
    tls: ssl.SSLContext | None = None

    def upstream_of_rest(self, source: str, headers: dict[str, str]) -> dict[str, Any]:
        """The metadata of a call made from an address of this machine."""
        scheme = "https" if self.tls else "http"
        transport = httpx.HTTPTransport(local_address=source, verify=self.tls or False)
        with httpx.Client(transport=transport, timeout=10) as http:
            answer = http.get(f"{scheme}://127.0.0.1:{self.port}{SESSIONS}", headers=headers)
        assert answer.status_code == 200
        return {**self.sessions.metadata[-1], "answered": dict(answer.headers)}

    def upstream_of_websocket(self, source: str, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a handshake."""
        url = f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}{STREAM}"
        with connect(
            url, ssl=self.tls, proxy=None, additional_headers=headers, source_address=(source, 0)
        ) as websocket:
            return dict(json.loads(websocket.recv()))

    def upstream_of_grpc(self, headers: dict[str, str]) -> dict[str, Any]:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = session_pb2_grpc.SessionServiceStub(channel)
            stub.ListSessions(session_pb2.ListSessionsRequest(), metadata=tuple(headers.items()), timeout=10)
        return dict(self.sessions.metadata[-1])


@contextmanager
def bridge(port: int) -> Iterator[None]:
    """Sends the headers of the handshake to the client."""

    def healthz(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(HTTPStatus.OK, "ok") if request.path == "/healthz" else None

    def send_headers(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(json.dumps(dict(connection.request.headers.raw_items())))

    with serve(send_headers, "127.0.0.1", port, process_request=healthz) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@contextmanager
def watched(folder: Path, **more: Any) -> Iterator[Watched]:
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), **more)
    tls = ssl.create_default_context(cafile=str(endpoints.certificate.chain)) if endpoints.certificate else None
    with backend(endpoints.server_port) as sessions, bridge(endpoints.bridge_port), envoy(folder, endpoints):
        yield Watched(endpoints.port, sessions, folder / "access.log", tls)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Clients connect to it."""
    with watched(tmp_path_factory.mktemp("first")) as front:
        yield front


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Some of those that connect to it are proxies."""
    with watched(tmp_path_factory.mktemp("behind"), proxies=PROXIES) as front:
        yield front


@pytest.fixture(params=["first", "behind"])
def either(request: pytest.FixtureRequest) -> Watched:
    found: Watched = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("forged", ["203.0.113.9", f"203.0.113.9, {PROXY}", f"203.0.113.9, {CLIENT}", "x", ""])
def test_a_client_does_not_choose_its_address(either: Watched, forged: str) -> None:
    headers = {"x-forwarded-for": forged}
    assert either.upstream_of_rest(CLIENT, headers)["x-forwarded-for"] == CLIENT
    assert either.upstream_of_grpc(headers)["x-forwarded-for"] == CLIENT
    assert either.upstream_of_websocket(CLIENT, headers)["x-forwarded-for"] == CLIENT


def test_an_unlisted_peer_is_no_proxy(first: Watched) -> None:
    headers = {"x-forwarded-for": "203.0.113.9"}
    assert first.upstream_of_rest(PROXY, headers)["x-forwarded-for"] == PROXY
    assert first.upstream_of_websocket(PROXY, headers)["x-forwarded-for"] == PROXY


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8::7", "2001:db8::7"),
        # The part of the client comes before the part that its proxy added.
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (f"{PROXY}, 203.0.113.9", "203.0.113.9"),
        ("nonsense, 203.0.113.9", "203.0.113.9"),
        # Two trusted proxies, one behind the other.
        (f"198.51.100.1, 203.0.113.9, {INNER_PROXY}", "203.0.113.9"),
        # If the header of a proxy is of no use, the address of the proxy is used.
        ("203.0.113.9:4711", PROXY),
        ("unknown", PROXY),
        ("", PROXY),
    ],
)
def test_a_listed_proxy_is_trusted_for_the_client_address(behind: Watched, forwarded: str, address: str) -> None:
    headers = {"x-forwarded-for": forwarded}
    assert behind.upstream_of_rest(PROXY, headers)["x-forwarded-for"] == address
    assert behind.upstream_of_websocket(PROXY, headers)["x-forwarded-for"] == address


def test_the_header_of_a_proxy_may_have_several_lines(behind: Watched) -> None:
    transport = httpx.HTTPTransport(local_address=PROXY)
    with httpx.Client(transport=transport, timeout=10) as http:
        lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.9")]
        assert http.get(f"http://127.0.0.1:{behind.port}{SESSIONS}", headers=lines).status_code == 200
    assert behind.sessions.metadata[-1]["x-forwarded-for"] == "203.0.113.9"


def test_only_a_listed_proxy_is_trusted_for_the_scheme(first: Watched, behind: Watched) -> None:
    headers = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    for front, source, scheme in (
        (first, CLIENT, "http"),
        (first, PROXY, "http"),
        (behind, CLIENT, "http"),
        (behind, PROXY, "https"),
    ):
        assert front.upstream_of_websocket(source, headers)["x-forwarded-proto"] == scheme


@pytest.mark.parametrize("proxies", [(), PROXIES])
def test_with_tls_the_scheme_is_https(tmp_path: Path, proxies: tuple[Any, ...]) -> None:
    certificate = make_certificate(tmp_path, 1)
    with watched(tmp_path / "envoy", certificate=certificate, proxies=proxies) as front:
        upstream = front.upstream_of_websocket(CLIENT, {"x-forwarded-proto": "http", "x-forwarded-for": "203.0.113.9"})
        assert (upstream["x-forwarded-proto"], upstream["x-forwarded-for"]) == ("https", CLIENT)


@pytest.mark.parametrize("source", [CLIENT, PROXY])
def test_no_client_controls_retries_timeouts_or_the_request_id(either: Watched, source: str) -> None:
    own = {
        "x-request-id": "11111111-1111-4111-8111-111111111111",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-original-path": "/forged",
        "x-envoy-internal": "true",
        "x-envoy-external-address": "203.0.113.9",
        "x-forwarded-for": "10.0.0.1",
    }
    upstream = either.upstream_of_rest(source, own)
    # The transcoder sets these itself.
    assert (upstream["x-envoy-original-method"], upstream["x-envoy-original-path"]) == ("GET", SESSIONS)
    others = {name for name in upstream if name.startswith("x-envoy-")} - {
        "x-envoy-original-method",
        "x-envoy-original-path",
    }
    assert not others - {"x-envoy-external-address"}
    assert upstream.get("x-envoy-external-address") != "203.0.113.9"
    assert upstream["x-request-id"] != own["x-request-id"]
    assert upstream["answered"]["x-request-id"] == upstream["x-request-id"]


def test_the_access_log_has_no_address_from_a_proxy(behind: Watched) -> None:
    request_id = behind.upstream_of_rest(PROXY, {"x-forwarded-for": "203.0.113.77"})["x-request-id"]
    deadline = time.monotonic() + 15
    while request_id not in (text := _logged(behind)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert request_id in text
    assert not any(address in text for address in ("203.0.113.77", PROXY, CLIENT))


def _logged(behind: Watched) -> str:
    """What the access log has so far: Envoy creates it with its first lines."""
    return behind.access_log.read_text() if behind.access_log.exists() else ""
