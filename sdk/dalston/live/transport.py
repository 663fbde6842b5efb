"""The interface of the transports that carry the messages of a session."""

from __future__ import annotations

from typing import Protocol

from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeResponse

OPEN_SECONDS = 30.0
"""Longest time to begin a session; resuming may have to wait for the earlier one."""


class Connection(Protocol):
    """The stream of one session. One task sends, another receives."""

    async def send_audio(self, audio: bytes) -> bool:
        """Sends audio once there is room for it. Returns False if the stream is over; `receive` raises the reason."""

    async def send_control(self, control: TranscribeControl) -> bool:
        """Sends a control, as `send_audio` does. Nothing may be sent after `end`."""

    async def receive(self) -> TranscribeResponse | None:
        """Returns the next message, or None if the stream ended without an error.

        Raises:
            DalstonError: the stream failed.
        """

    async def close(self) -> None:
        """Aborts the stream unless it is over."""


class Transport(Protocol):
    """Opens connections."""

    async def open(self, config: TranscribeConfig) -> Connection:
        """Opens a stream and sends the config; the caller receives `session_begin`.

        Raises:
            DalstonError: the stream cannot be opened.
        """
