"""More requests without an end than Envoy has memory for: new ones are refused, and running streams continue."""

import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2, transcription_pb2_grpc

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.faults.http2 import RawHttp2
from tests.integration.envoy.backend import backend

HEAP = 48 << 20
"""Envoy itself uses 14 MiB, and each of the requests below about 220 KB."""
NEVER_ENDING = (
    b"POST /v1/realtime/tokens HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"x-a: " + b"a" * 50_000 + b"\r\ncontent-length: 16000\r\n\r\n" + b'{"' + b"b" * 15_000
)
SESSIONS = "/v1/realtime/sessions"
MOST = 800
"""Twice as many as fit in the memory."""


def test_a_full_heap_refuses_new_requests_and_keeps_streams(tmp_path: Path) -> None:
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), heap_bytes=HEAP, requests_each=5 * MOST)
    with (
        backend(endpoints.server_port),
        envoy(tmp_path, endpoints),
        grpc.insecure_channel(f"127.0.0.1:{endpoints.port}") as channel,
        httpx.Client(base_url=f"http://127.0.0.1:{endpoints.port}", timeout=10) as client,
    ):
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        until(lambda: refusal_of(sessions) is None)
        speech: queue.SimpleQueue[transcription_pb2.TranscribeRequest] = queue.SimpleQueue()
        answers = transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe(requests(speech), timeout=60)
        speech.put(transcription_pb2.TranscribeRequest(config=transcription_pb2.TranscribeConfig()))
        next(answers)
        # An existing connection, because new ones wait near the limit.
        assert client.get("/v1/openapi.json").status_code == 200

        with ExitStack() as held:
            refused = fill(held, endpoints.port, sessions)
            assert refused is grpc.StatusCode.UNAVAILABLE
            answer = client.get("/v1/openapi.json")
            assert answer.status_code == 503
            assert answer.json()["details"][0]["reason"] == "UNAVAILABLE"
            speech.put(transcription_pb2.TranscribeRequest(audio=bytes(3200)))
            assert next(answers).final.text == "3200"

        until(lambda: refusal_of(sessions) is None)
        assert client.get("/v1/openapi.json").status_code == 200
        speech.put(transcription_pb2.TranscribeRequest(audio=bytes(1600)))
        assert next(answers).final.text == "1600"
        answers.cancel()


@pytest.mark.parametrize("path", ["/v1/realtime/tokens", "/v1/openapi.json", "/nothing"])
def test_one_address_cannot_fill_the_heap_on_its_own(tmp_path: Path, path: str) -> None:
    """Neither with requests that never end nor with answers that are never taken: only its own are refused."""
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), heap_bytes=HEAP, requests_each=10)
    others = httpx.HTTPTransport(local_address="127.0.0.2")
    with (
        backend(endpoints.server_port),
        envoy(tmp_path, endpoints),
        httpx.Client(base_url=f"http://127.0.0.1:{endpoints.port}", timeout=10, transport=others) as other,
        ExitStack() as held,
    ):
        until(lambda: other.get(SESSIONS).status_code == 200)
        for _ in range(20):
            # 14 KB of headers each, sent once a connection: 100 requests are 2 MB of Envoy's memory.
            connection = held.enter_context(RawHttp2(endpoints.port, window=0))
            connection.open_streams(path, 100, size=3400, times=4)
            assert other.get(SESSIONS).status_code == 200
            time.sleep(0.1)  # in which it may ask again


def test_a_rate_limited_address_receives_429_and_may_still_stream(tmp_path: Path) -> None:
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), requests_each=5)
    url = f"http://127.0.0.1:{endpoints.port}"
    with (
        backend(endpoints.server_port),
        envoy(tmp_path, endpoints),
        httpx.Client(base_url=url, timeout=10) as client,
        grpc.insecure_channel(f"127.0.0.1:{endpoints.port}") as channel,
    ):
        until(lambda: client.get(SESSIONS).status_code == 200)
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        until(lambda: refusal_of(sessions) is grpc.StatusCode.RESOURCE_EXHAUSTED, pause=0)
        for path in (SESSIONS, "/nothing", "/v1/openapi.json"):
            refused = refusal_by_rate(client, path)
            assert refused.json()["details"][0]["reason"] == "RATE_LIMITED"
            assert refused.headers["retry-after"] == "1"
        config = transcription_pb2.TranscribeRequest(config=transcription_pb2.TranscribeConfig())
        transcribe = transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe
        assert next(transcribe(iter([config]), timeout=10)).session_begin.session_id


def requests(speech: queue.SimpleQueue[transcription_pb2.TranscribeRequest]) -> Iterator[Any]:
    while True:
        yield speech.get()


def fill(held: ExitStack, port: int, sessions: session_pb2_grpc.SessionServiceStub) -> grpc.StatusCode | None:
    """Opens requests without an end until others are refused, and returns the status of these."""
    for number in range(MOST):
        connection = held.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        connection.sendall(NEVER_ENDING)
        # Envoy checks its memory ten times a second.
        if number % 10 == 9:
            time.sleep(0.2)
            if refused := refusal_of(sessions):
                return refused
    return None


def refusal_of(sessions: session_pb2_grpc.SessionServiceStub) -> grpc.StatusCode | None:
    try:
        sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=5)
    except grpc.RpcError as error:
        return error.code()
    return None


def refusal_by_rate(client: httpx.Client, path: str) -> httpx.Response:
    """The first refusal of requests that are sent as fast as they are answered."""
    deadline = time.monotonic() + 10
    while (answer := client.get(path)).status_code != 429:
        assert time.monotonic() < deadline
    return answer


def until(holds: Callable[[], bool], pause: float = 0.1) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(pause)
