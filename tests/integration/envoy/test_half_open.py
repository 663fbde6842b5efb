"""Requests without an end, from callers without a key: they block no others and are ended in time."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2, transcription_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.sync.client import connect

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from tests.integration.envoy.backend import AUDIO_BYTES, SLOW_CHUNKS, backend
from tests.integration.envoy.conftest import Front, bridge

CALL_SECONDS = 1
STALL_SECONDS = 2
SERVICE = "/dalston.v1.SessionService"


@pytest.fixture(scope="module")
def short_limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """An Envoy with limits short enough to wait for."""
    folder = tmp_path_factory.mktemp("short_limits")
    limits = {"call_seconds": CALL_SECONDS, "stall_seconds": STALL_SECONDS}
    endpoints = Endpoints(["127.0.0.1"], free_port(), free_port(), free_port(), **limits)
    with backend(endpoints.server_port) as sessions, bridge(endpoints.bridge_port), envoy(folder, endpoints):
        wait_until_served(f"http://127.0.0.1:{endpoints.port}")
        yield Front(endpoints.port, folder / "access.log", sessions)


def wait_until_served(url: str) -> None:
    deadline = time.monotonic() + 10
    while httpx.get(f"{url}/v1/realtime/sessions").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def silence(until: threading.Event) -> Iterator[bytes]:
    """A request stream that neither sends nor ends."""
    until.wait(30)
    yield from ()


NEVER_ENDING = {
    f"{SERVICE}/ListSessions": CALL_SECONDS,
    "/dalston.v1.KeyService/CreateKey": CALL_SECONDS,
    f"{SERVICE}/GetAudio": CALL_SECONDS,
    f"{SERVICE}/WatchSessions": CALL_SECONDS,
    "/grpc.health.v1.Health/Check": 5,
}
"""Paths, and the seconds after which such a request is ended."""


def test_requests_without_an_end_are_ended_before_the_server(short_limits: Front) -> None:
    done = threading.Event()
    asked = len(short_limits.sessions.metadata)
    started = time.monotonic()
    ended: queue.Queue[tuple[str, float]] = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{short_limits.port}") as channel:
        calls = [
            (path, channel.stream_stream(path)(silence(done), timeout=20)) for path in NEVER_ENDING for _ in range(20)
        ]
        for path, call in calls:
            call.add_done_callback(lambda _, path=path: ended.put((path, time.monotonic() - started)))
        took = [ended.get(timeout=20) for _ in calls]
        done.set()
    assert {(path, call.code()) for path, call in calls} == {
        (path, grpc.StatusCode.DEADLINE_EXCEEDED) for path in NEVER_ENDING
    }
    assert [each for each in took if not -0.5 < each[1] - NEVER_ENDING[each[0]] < 4] == []
    assert len(short_limits.sessions.metadata) == asked
    for path in NEVER_ENDING:
        assert {entry["attempts"] for entry in log_entries(short_limits, path, 20)} == {0}


@pytest.mark.parametrize("method", ["ListSessions", "GetAudio", "WatchSessions"])
def test_a_request_that_arrives_byte_by_byte_is_ended(short_limits: Front, method: str) -> None:
    """No limit between two bytes holds for it."""
    done = threading.Event()

    def bytewise() -> Iterator[bytes]:
        deadline = time.monotonic() + 20
        while not done.wait(0.2) and time.monotonic() < deadline:
            yield b""

    asked = len(short_limits.sessions.metadata)
    with grpc.insecure_channel(f"127.0.0.1:{short_limits.port}") as channel:
        call = channel.stream_stream(f"{SERVICE}/{method}")(bytewise(), timeout=30)
        with pytest.raises(grpc.RpcError) as refused:
            next(call)
        done.set()
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused.value.details() == "the request took too long to arrive"
    assert len(short_limits.sessions.metadata) == asked


def test_a_stream_of_audio_lasts_longer_than_a_request_may_take_to_arrive(short_limits: Front) -> None:
    """By gRPC and by WebSocket: the response began before the limit."""
    url = f"ws://127.0.0.1:{short_limits.port}/v1/audio/transcriptions/stream"
    with (
        grpc.insecure_channel(f"127.0.0.1:{short_limits.port}") as channel,
        connect(url, proxy=None) as socket,
    ):
        sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        calls = transcription_pb2_grpc.TranscriptionServiceStub(channel).Transcribe(iter(sent.get, None), timeout=60)
        sent.put(transcription_pb2.TranscribeRequest(config=transcription_pb2.TranscribeConfig()))
        next(calls)
        socket.recv()
        for _ in range(3):
            time.sleep(CALL_SECONDS)
            sent.put(transcription_pb2.TranscribeRequest(audio=bytes(3200)))
            assert next(calls).final.text == "3200"
            socket.send("still here")
            assert socket.recv() == "still here"
        sent.put(None)


def test_a_download_lasts_longer_than_its_request_may_take_to_arrive(short_limits: Front) -> None:
    """By gRPC and by REST."""
    path = "/v1/realtime/sessions/sess_slow/audio"
    started = time.monotonic()
    assert len(httpx.get(f"{short_limits.http}{path}", timeout=20).content) == AUDIO_BYTES
    with grpc.insecure_channel(f"127.0.0.1:{short_limits.port}") as channel:
        request = session_pb2.GetAudioRequest(session_id="sess_slow")
        pieces = session_pb2_grpc.SessionServiceStub(channel).GetAudio(request, timeout=20)
        assert sum(len(piece.data) for piece in pieces) == AUDIO_BYTES
    assert time.monotonic() - started > 2 * SLOW_CHUNKS * 0.5
    assert not {name for name in short_limits.sessions.metadata[-1] if name.startswith("dalston-")}


def log_entries(front: Front, path: str, count: int) -> list[dict[str, Any]]:
    """The log entries of a path, once there are as many; Envoy writes them every second."""
    deadline = time.monotonic() + 15
    while True:
        entries = [json.loads(line) for line in front.logged().splitlines()]
        if len(found := [entry for entry in entries if entry["path"] == path]) >= count:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_body_without_an_end_is_a_408_in_json(short_limits: Front) -> None:
    def body() -> Iterator[bytes]:
        yield b"{"
        time.sleep(CALL_SECONDS + 3)
        yield b"}"

    started = time.monotonic()
    try:
        answer = httpx.post(f"{short_limits.http}/v1/keys", content=body(), timeout=20)
    except httpx.TransportError:
        # The client writes after the server has closed.
        assert time.monotonic() - started > CALL_SECONDS
    else:
        assert answer.status_code == 408
        assert answer.json()["code"] == 4


def test_watches_without_a_key_block_no_calls(short_limits: Front) -> None:
    """There are many more watches than one connection to the server may have."""
    with ExitStack() as channels:
        watches = []
        for _ in range(4):
            # A connection has 100 streams, and a channel uses one connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = channels.enter_context(grpc.insecure_channel(f"127.0.0.1:{short_limits.port}", options=options))
            watch = health_pb2_grpc.HealthStub(channel).Watch
            watches += [watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(75)]
        refused = [call for call in watches if ended_with(call) is grpc.StatusCode.UNAVAILABLE]
        # There are more while Envoy reconnects; calls must be served meanwhile.
        assert len(refused) >= 300 - 256
        assert httpx.get(f"{short_limits.http}/v1/realtime/sessions").status_code == 200
        for call in watches:
            call.cancel()


def ended_with(call: Any) -> grpc.StatusCode | None:
    """The status of a watch that is over; None if it receives a message first."""
    try:
        next(call)
    except grpc.RpcError as error:
        return error.code()
    return None
