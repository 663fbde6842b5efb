"""How a session reaches the service: messages of the contract in and out, whatever carries them."""

from __future__ import annotations

from typing import Protocol

from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeResponse

OPEN_SECONDS = 30.0
"""For the service to take a session. One that is resumed may be waited for."""


class Connection(Protocol):
    """One session's stream. One task sends, one receives."""

    async def send_audio(self, audio: bytes) -> bool:
        """Sends audio once there is room for it; False when the stream is over, and `receive` says why."""

    async def send_control(self, control: TranscribeControl) -> bool:
        """Sends an instruction, as `send_audio` does. Nothing may be sent after `end`."""

    async def receive(self) -> TranscribeResponse | None:
        """The next message, or None when the stream has ended well.

        Raises:
            DalstonError: it failed.
        """

    async def close(self) -> None:
        """Breaks the stream off, unless it is over."""


class Transport(Protocol):
    """What opens connections."""

    async def open(self, config: TranscribeConfig) -> Connection:
        """Opens a stream and sends the config; `session_begin` is still to be received.

        Raises:
            DalstonError: it cannot be opened.
        """
