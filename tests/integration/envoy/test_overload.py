"""More requests that never end than Envoy has memory for: new ones are refused, and streams that run go on."""

import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2, transcription_pb2_grpc

from stack.envoy import Doors, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import backend

HEAP = 48 << 20
"""Envoy itself takes 14 MiB, and each of the requests below about 220 KB."""
NEVER_ENDING = (
    b"POST /v1/realtime/tokens HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"x-a: " + b"a" * 50_000 + b"\r\ncontent-length: 60000\r\n\r\n" + b'{"' + b"b" * 50_000
)
MOST = 400
"""Twice as many as there is memory for."""


def test_a_full_heap_refuses_new_requests_and_leaves_streams_alone(tmp_path: Path) -> None:
    doors = Doors(["127.0.0.1"], free_port(), free_port(), free_port(), heap_bytes=HEAP)
    with (
        backend(doors.server_port),
        envoy(tmp_path, doors),
        grpc.insecure_channel(f"127.0.0.1:{doors.port}") as channel,
        httpx.Client(base_url=f"http://127.0.0.1:{doors.port}", timeout=10) as client,
    ):
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        until(lambda: refusal_of(sessions) is None)
        speech: queue.SimpleQueue[transcription_pb2.TranscribeRequest] = queue.SimpleQueue()
        answers = transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe(requests(speech), timeout=60)
        speech.put(transcription_pb2.TranscribeRequest(config=transcription_pb2.TranscribeConfig()))
        next(answers)
        # A connection from before: near the limit new ones wait.
        assert client.get("/v1/openapi.json").status_code == 200

        with ExitStack() as held:
            refused = fill(held, doors.port, sessions)
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


def requests(speech: queue.SimpleQueue[transcription_pb2.TranscribeRequest]) -> Iterator[Any]:
    while True:
        yield speech.get()


def fill(held: ExitStack, port: int, sessions: session_pb2_grpc.SessionServiceStub) -> grpc.StatusCode | None:
    """Opens requests that never end until others are refused; gives how these are."""
    for number in range(MOST):
        connection = held.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        connection.sendall(NEVER_ENDING)
        # Envoy looks ten times a second.
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


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
