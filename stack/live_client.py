"""A client as a user would write it: sends a recording in real time, and reads messages meanwhile."""

import json
import time
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from stack.errors import StackError
from stack.process import Pause

CHUNK_SECONDS = 0.1
_OPEN_SECONDS = 30.0
_IDLE_SECONDS = 60.0
"""Longest time without a message after the last of the audio."""

Message = dict[str, Any]


class StreamFailed(StackError):
    """The service refused or aborted the stream."""


def transcribe(url: str, pcm: bytes, rate: int, pause: Pause) -> Iterator[Message]:
    """Streams 16-bit mono audio in real time; yields each message as it arrives, `session.end` last.

    Raises:
        StreamFailed: with the message of the service.
    """
    step = int(rate * CHUNK_SECONDS) * 2
    try:
        # A proxy of the environment is not for this machine.
        with connect(url, proxy=None, open_timeout=_OPEN_SECONDS) as socket:
            yield _parse(socket.recv(timeout=_OPEN_SECONDS))
            began = time.monotonic()
            for number, start in enumerate(range(0, len(pcm), step), 1):
                socket.send(pcm[start : start + step])
                yield from _read_until(socket, began + number * CHUNK_SECONDS, pause)
            socket.send(json.dumps({"type": "end"}))
            yield from _read_to_the_end(socket, pause)
    except ConnectionClosed as error:
        raise StreamFailed(f"the service closed the stream before its end: {error}") from error
    except (WebSocketException, OSError) as error:
        raise StreamFailed(f"cannot stream to {url}: {error}") from error


def _read_until(socket: ClientConnection, deadline: float, pause: Pause) -> Iterator[Message]:
    while True:
        pause(0)
        try:
            yield _parse(socket.recv(timeout=max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            return


def _read_to_the_end(socket: ClientConnection, pause: Pause) -> Iterator[Message]:
    received_at = time.monotonic()
    while time.monotonic() - received_at < _IDLE_SECONDS:
        for message in _read_until(socket, time.monotonic() + CHUNK_SECONDS, pause):
            received_at = time.monotonic()
            yield message
            if message["type"] == "session.end":
                return
    raise StreamFailed(f"the service sent nothing for {_IDLE_SECONDS:.0f} s after the end of the audio")


def _parse(text: str | bytes) -> Message:
    message: Message = json.loads(text)
    if message["type"] == "error":
        raise StreamFailed(f"the service answered: {message['message']} ({message['code']})")
    return message
