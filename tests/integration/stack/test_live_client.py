"""The demo's client against a scripted bridge."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.server import ServerConnection, serve

from stack.errors import Interrupted
from stack.live_client import StreamFailed, transcribe
from stack.ports import free_port

BEGIN = json.dumps({"type": "session.begin", "session_id": "sess_1"})
END = json.dumps({"type": "session.end", "session_id": "sess_1"})
SECOND = bytes(32_000)


@contextmanager
def bridge(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    port = free_port()
    with serve(handler, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{port}/"
        server.shutdown()
        thread.join()


def test_audio_is_sent_in_real_time_and_messages_arrive_meanwhile() -> None:
    received: list[bytes] = []

    def handler(connection: ServerConnection) -> None:
        connection.send(BEGIN)
        for frame in connection:
            if isinstance(frame, str):
                break
            received.append(frame)
            connection.send(json.dumps({"type": "transcript.final", "text": str(len(received))}))
        connection.send(END)

    began = time.monotonic()
    with bridge(handler) as url:
        kinds = [message["type"] for message in transcribe(url, SECOND, 16_000, time.sleep)]
    assert kinds == ["session.begin", *["transcript.final"] * 10, "session.end"]
    assert b"".join(received) == SECOND
    assert 0.9 < time.monotonic() - began < 3


def test_an_error_has_the_message_of_the_service() -> None:
    def handler(connection: ServerConnection) -> None:
        connection.send(json.dumps({"type": "error", "code": "no_capacity", "message": "all places are taken"}))
        connection.close(4503)

    with bridge(handler) as url, pytest.raises(StreamFailed, match=r"all places are taken \(no_capacity\)"):
        list(transcribe(url, SECOND, 16_000, time.sleep))


def test_an_aborted_stream_is_an_error() -> None:
    def handler(connection: ServerConnection) -> None:
        connection.send(BEGIN)
        connection.recv()
        connection.close(1011)

    with bridge(handler) as url, pytest.raises(StreamFailed, match="closed the stream before its end"):
        list(transcribe(url, SECOND, 16_000, time.sleep))


def test_an_unreachable_service_is_an_error() -> None:
    with pytest.raises(StreamFailed, match="cannot stream to"):
        list(transcribe(f"ws://127.0.0.1:{free_port()}/", SECOND, 16_000, time.sleep))


def test_ctrl_c_ends_the_stream_between_two_chunks() -> None:
    def handler(connection: ServerConnection) -> None:
        connection.send(BEGIN)
        for _ in connection:
            pass

    calls = 0

    def pause(seconds: float) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Interrupted

    with bridge(handler) as url, pytest.raises(Interrupted):
        list(transcribe(url, SECOND * 60, 16_000, pause))
