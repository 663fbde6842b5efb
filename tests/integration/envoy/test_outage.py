"""Envoy without a running upstream."""

import time
from collections.abc import Iterator

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import backend


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port())
    with envoy(tmp_path_factory.mktemp("outage"), endpoints):
        yield endpoints


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime/sessions",
        "/v1/realtime/sessions/sess_1",
        "/v1/realtime/sessions/sess_1/audio",
        "/v1/audio/transcriptions/stream",
    ],
)
def test_a_missing_server_is_a_503_in_json(endpoints: Endpoints, path: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{endpoints.port}{path}", timeout=10)
    assert answer.status_code == 503
    assert answer.json() == {
        "code": 14,
        "message": "the service is not available; try again shortly",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "UNAVAILABLE",
                "domain": "dalston.v1",
                "metadata": {},
            }
        ],
    }


def test_a_grpc_client_sees_unavailable(endpoints: Endpoints) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{endpoints.port}") as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListSessions(session_pb2.ListSessionsRequest(), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_server_that_starts_is_used_within_seconds(endpoints: Endpoints) -> None:
    deadline = time.monotonic() + 8
    with backend(endpoints.server_port), httpx.Client(timeout=5) as client:
        answer = client.get(f"http://127.0.0.1:{endpoints.port}/v1/realtime/sessions")
        while answer.status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
            answer = client.get(f"http://127.0.0.1:{endpoints.port}/v1/realtime/sessions")
    assert answer.status_code == 200
