"""HTTP/2 that no client library sends: frames made by hand, over a plain socket."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0x0, 0x1, 0x4
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW_SIZE: Final = 0x4
_DYNAMIC_FIRST: Final = b"\xbe"
"""HPACK: the header that was put into the dynamic table last, in one byte."""


class RawHttp2:
    """A connection whose streams are opened and never read."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", window: int | None = None) -> None:
        """Connects.

        Args:
            port: on 127.0.0.1.
            source: the address to come from.
            window: bytes of each answer that may be sent; None for HTTP/2's default.
        """
        self._socket = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        self._next = 1
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_streams(self, path: str, count: int, *, size: int, times: int, content_type: str = "") -> bool:
        """Opens streams with one header of `size` bytes, sent once and then named `times` times in each.

        None of them sends a body or ends. Returns whether the other end still accepts what is sent.
        """
        first = self._next == 1
        frames = []
        for number in range(count):
            block = request_head(path, content_type)
            block += literal("x-a", "a" * size) if first and not number else _DYNAMIC_FIRST
            block += _DYNAMIC_FIRST * (times - 1)
            frames.append(frame(HEADERS, END_HEADERS, self._next, block))
            self._next += 2
        try:
            self._socket.sendall(b"".join(frames))
        except OSError:
            return False
        return True

    def drain(self) -> bytes:
        """The bytes that the other end has sent so far."""
        received = b""
        self._socket.settimeout(0.2)
        with suppress(OSError):
            while piece := self._socket.recv(65536):
                received += piece
        self._socket.settimeout(10)
        return received


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request_head(path: str, content_type: str = "") -> bytes:
    """The pseudo-headers of a POST, in HPACK without use of its dynamic table."""
    block = b"\x83\x86" + b"\x01" + _text("localhost") + b"\x04" + _text(path)
    return block + (b"\x0f\x10" + _text(content_type) if content_type else b"")


def literal(name: str, value: str) -> bytes:
    """A header that is put into the dynamic table."""
    return b"\x40" + _text(name) + _text(value)


def _text(value: str) -> bytes:
    return _integer(len(value)) + value.encode()


def _integer(value: int) -> bytes:
    """With a prefix of 7 bits."""
    if value < 127:
        return bytes([value])
    value -= 127
    result = b"\x7f"
    while value >= 128:
        result += bytes([value % 128 + 128])
        value //= 128
    return result + bytes([value])
